//! Steps of all shapes, with and without graphs, against the CPU.

use super::*;

/// Runs the same steps on both and compares logits; returns the largest distance before and after pages
/// were converted.
fn play(cpu: &mut dyn Backend, gpu: &mut dyn Backend, vocab: usize) -> [f32; 2] {
    let hot = Sampling {
        temperature: 0.8,
        top_p: 0.9,
        seed: 11,
    };
    let (a, b, c) = (text(75, vocab, 1), text(60, vocab, 2), text(33, vocab, 3));
    let mut pages = Vec::new();
    for tokens in [90, 90, 40] {
        let (x, y) = (take(cpu, tokens), take(gpu, tokens));
        assert_eq!(x, y, "pages are given in the same order");
        pages.push(x);
    }
    let mut worst = [0_f32; 2];
    let mut step =
        |cpu: &mut dyn Backend, gpu: &mut dyn Backend, spans: &[Span<'_>], then: usize| {
            let (mut want, mut got) = (Vec::new(), Vec::new());
            cpu.step(spans, &mut want).unwrap();
            gpu.step(spans, &mut got).unwrap();
            let (x, y) = (gpu.logits().unwrap(), cpu.logits().unwrap());
            if !y.is_empty() {
                worst[then] = worst[then].max(off(&x, &y));
            }
            for (got, want) in got.iter().zip(&want) {
                assert!(
                    (got.entropy - want.entropy).abs() < 0.05,
                    "{got:?} {want:?}"
                );
                assert!((got.margin - want.margin).abs() < 0.05, "{got:?} {want:?}");
            }
        };
    let span = |tokens, start, pages, sample, layers| Span {
        tokens,
        start,
        pages,
        sample,
        layers,
    };
    let greedy = Some(Sampling::GREEDY);
    // Prompts in pieces; one leaves early; one of a single token beside them.
    let spans = [
        span(&a[..1], 0, &pages[0][..], greedy, None),
        span(&b[..40], 0, &pages[1][..], None, None),
        span(&c[..20], 0, &pages[2][..], greedy, Some(1)),
    ];
    step(cpu, gpu, &spans, 0);
    let spans = [
        span(&c[20..33], 20, &pages[2][..], greedy, None),
        span(&a[1..64], 1, &pages[0][..], Some(hot), None),
        span(&b[40..41], 40, &pages[1][..], greedy, Some(1)),
    ];
    step(cpu, gpu, &spans, 0);
    // Full pages in other formats.
    for (page, format) in [
        (pages[0][0], KvFormat::Fp8),
        (pages[0][1], KvFormat::Int8),
        (pages[0][2], KvFormat::Fp8),
        (pages[1][0], KvFormat::Int8),
    ] {
        cpu.convert_page(page, format).unwrap();
        gpu.convert_page(page, format).unwrap();
    }
    assert_eq!(cpu.kv_bytes(), gpu.kv_bytes());
    // Decoding, in a batch of three and of two: graphs, with rows that fill up.
    for i in 0..8 {
        let mut spans = vec![
            span(&a[64 + i..=64 + i], 64 + i, &pages[0][..], greedy, None),
            span(&b[41 + i..=41 + i], 41 + i, &pages[1][..], Some(hot), None),
        ];
        if i % 2 == 0 {
            spans.push(span(&c[i..=i], 33 + i / 2, &pages[2][..], None, None));
        }
        step(cpu, gpu, &spans, 1);
    }
    worst
}

#[test]
fn steps_give_what_the_cpu_gives() {
    for device in devices() {
        for (config, numbers, bounds) in [
            // Queries, keys, values and weights of attention in 16 bits: 2^-11 of each number; then 8-bit
            // pages, where a last bit may tip a number over to the next code, 2^-3 away.
            (config(), Numbers::F32, [1e-3, 3e-3]),
            (wide(), Numbers::F32, [1e-3, 3e-3]),
            // All activations have 8 bits: 2^-9 of each number, through all layers.
            (config(), Numbers::Bf16, [15e-3, 3e-2]),
            (wide(), Numbers::Bf16, [15e-3, 3e-2]),
        ] {
            let weights = rounded(&config);
            let mut cpu = Cpu::new(&config, &weights, &MEMORY).unwrap();
            let options = CudaOptions { numbers, ..OPTIONS };
            let source = Source::Host(&weights);
            let mut gpu =
                CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
            let worst = play(&mut cpu, &mut gpu, config.vocab_size);
            let name = &device.info().name;
            println!("{name}: {numbers:?} {worst:?}");
            for (worst, bound) in worst.into_iter().zip(bounds) {
                assert!(worst < bound, "{name}, {numbers:?}: {worst} over {bound}");
            }
        }
    }
}

/// Sequences of one token, of a page less, of a page, and of a page more; batches that fill no bucket and more
/// rows than the own products take; query heads that fill no tile, one and all of it.
#[test]
fn unusual_shapes_give_what_the_cpu_gives() {
    let shapes: [(usize, usize, usize, &[usize]); 4] = [
        (3, 3, 64, &[1, 5]),
        (7, 1, 64, &[65]),
        (16, 1, 128, &[1, 17]),
        (10, 2, 128, &[1, 17]),
    ];
    for (heads, kv_heads, dim, batches) in shapes {
        let config = ModelConfig {
            hidden_size: 72,
            intermediate_size: 40,
            num_hidden_layers: 1,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: dim,
            vocab_size: 131,
            ..ModelConfig::pocket_light()
        };
        let weights = rounded(&config);
        let memory = KvMemory {
            pages: 80,
            ..MEMORY
        };
        let mut cpu = Cpu::new(&config, &weights, &memory).unwrap();
        for device in devices() {
            let source = Source::Host(&weights);
            let options = CudaOptions {
                numbers: Numbers::Bf16,
                ..OPTIONS
            };
            let mut gpu = CudaBackend::on(device, &config, source, &memory, options).unwrap();
            for &batch in batches {
                // Contexts of 0, 14, 15 and 16 tokens, of which the first batch is the first.
                let starts: Vec<usize> = (0..batch).map(|i| [0, 15, 14, 16][i % 4]).collect();
                let need = |start: &usize| (start + 1).div_ceil(16);
                let (a, b): (Vec<Vec<u32>>, Vec<Vec<u32>>) = starts
                    .iter()
                    .map(|start| {
                        (
                            take(&mut cpu, 16 * need(start)),
                            take(&mut gpu, 16 * need(start)),
                        )
                    })
                    .take(40)
                    .unzip();
                let prompts: Vec<Vec<u32>> = starts
                    .iter()
                    .map(|&start| text(start + 1, 131, start as u64))
                    .collect();
                let steps = |pages: &[Vec<u32>], backend: &mut dyn Backend| {
                    let span = |i: usize, last: bool| {
                        let start = starts[i];
                        let (tokens, start) = if last {
                            (&prompts[i][start..], start)
                        } else {
                            (&prompts[i][..start], 0)
                        };
                        Span {
                            tokens,
                            start,
                            // Those beyond the memory share the pages of others with the same tokens.
                            pages: &pages[i % 40],
                            sample: last.then_some(Sampling::GREEDY),
                            layers: None,
                        }
                    };
                    for last in [false, true] {
                        let spans: Vec<Span<'_>> = (0..batch).map(|i| span(i, last)).collect();
                        backend.step(&spans, &mut Vec::new()).unwrap();
                    }
                    let logits = backend.logits().unwrap();
                    pages
                        .iter()
                        .flatten()
                        .for_each(|&p| backend.give_back_page(p));
                    logits
                };
                let (want, got) = (steps(&a, &mut cpu), steps(&b, &mut gpu));
                let off = off(&got, &want);
                assert!(
                    off < 15e-3,
                    "{heads}/{kv_heads} heads of {dim}, batch {batch}: {off}"
                );
            }
        }
    }
}

#[test]
fn graphs_give_the_bits_of_direct_launches_in_one_call() {
    for device in devices() {
        let config = config();
        let weights = Weights::random(&config, 5).unwrap();
        let tokens = text(30, 258, 9);
        let mut all = Vec::new();
        for graphs in [false, true] {
            let options = CudaOptions { graphs, ..OPTIONS };
            let source = Source::Host(&weights);
            let mut gpu =
                CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
            let pages = [take(&mut gpu, 40), take(&mut gpu, 40), take(&mut gpu, 40)];
            let mut logits = Vec::new();
            for i in 0..20 {
                let spans: Vec<Span<'_>> = pages
                    .iter()
                    .map(|pages| Span {
                        tokens: &tokens[i..=i],
                        start: i,
                        pages,
                        sample: Some(Sampling::GREEDY),
                        layers: None,
                    })
                    .collect();
                gpu.step(&spans, &mut Vec::new()).unwrap();
                let launches = gpu.launches();
                // Embedding, per layer four products and five other kernels, then norm, head, sampling.
                assert_eq!(launches.work, 1 + 3 * 9 + 3);
                let replayed = graphs && i > 0;
                assert_eq!(launches.calls, if replayed { 1 } else { launches.work });
                logits.push(gpu.logits().unwrap());
            }
            assert_eq!(gpu.graphs.len(), usize::from(graphs));
            all.push(logits);
        }
        assert_eq!(all[0], all[1]);
    }
}

#[test]
fn long_contexts_are_split_and_put_together() {
    let config = ModelConfig {
        num_hidden_layers: 1,
        ..config()
    };
    let weights = Weights::random(&config, 5).unwrap();
    let tokens = text(401, 258, 4);
    for device in devices() {
        let options = OPTIONS;
        let source = Source::Host(&weights);
        let mut gpu = CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
        let mut cpu = Cpu::new(&config, &weights, &MEMORY).unwrap();
        let (a, b) = (take(&mut cpu, 401), take(&mut gpu, 401));
        let mut sampled = Vec::new();
        for (start, end) in [(0, 400), (400, 401)] {
            cpu.step(
                &[crate::backend::greedy(&tokens[start..end], start, &a)],
                &mut sampled,
            )
            .unwrap();
            gpu.step(
                &[crate::backend::greedy(&tokens[start..end], start, &b)],
                &mut sampled,
            )
            .unwrap();
            assert!(off(&gpu.logits().unwrap(), &cpu.logits().unwrap()) < 2e-3);
        }
        // One layer: combining the splits is a kernel more than the nine of a short context.
        assert_eq!(gpu.launches().work, 1 + 10 + 3);
        assert_eq!(gpu.work().flops, cpu.work().flops);
        assert_eq!(gpu.work().kv_read_bytes, cpu.work().kv_read_bytes);
    }
}

#[test]
fn a_step_larger_than_its_room_takes_more() {
    let config = config();
    let weights = Weights::random(&config, 5).unwrap();
    let tokens = text(100, 258, 4);
    for device in devices() {
        let source = Source::Host(&weights);
        let options = CudaOptions {
            rows: 4,
            spans: 1,
            ..OPTIONS
        };
        let mut gpu = CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
        let mut cpu = Cpu::new(&config, &weights, &MEMORY).unwrap();
        let (a, b) = (take(&mut cpu, 100), take(&mut gpu, 100));
        let mut sampled = Vec::new();
        for (start, end) in [(0, 1), (1, 2), (2, 99), (99, 100)] {
            let span = |pages| Span {
                tokens: &tokens[start..end],
                start,
                pages,
                sample: Some(Sampling::GREEDY),
                layers: None,
            };
            cpu.step(&[span(&a[..])], &mut sampled).unwrap();
            gpu.step(&[span(&b[..])], &mut sampled).unwrap();
            assert!(off(&gpu.logits().unwrap(), &cpu.logits().unwrap()) < 2e-3);
        }
    }
}
