//! The GPU backend against the CPU, on every device at hand: a GPU if there is one, and always the emulator,
//! which runs the same kernels through the host's C++ compiler.

use super::*;
use crate::backend::Sampling;
use crate::backend::cpu::Cpu;
use crate::weights::Weights;
use windtunnel_base::rng::Rng;

mod kernels_alone;

fn config() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 3,
        num_attention_heads: 6,
        tie_word_embeddings: false,
        ..ModelConfig::pocket_light()
    }
}

/// Heads of 128 numbers, four to a key-value head; sizes that no tile divides.
fn wide() -> ModelConfig {
    ModelConfig {
        hidden_size: 200,
        intermediate_size: 328,
        num_hidden_layers: 2,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 128,
        vocab_size: 1_001,
        tie_word_embeddings: true,
        ..ModelConfig::pocket_light()
    }
}

const MEMORY: KvMemory = KvMemory {
    pages: 64,
    page_tokens: 16,
    filling: KvFormat::F16,
};

const OPTIONS: CudaOptions = CudaOptions {
    numbers: Numbers::F32,
    graphs: true,
    rows: 64,
    spans: 8,
    tune: false,
};

/// Devices at hand, with what is said about those that are not.
pub(super) fn devices() -> Vec<Device> {
    let folder = std::env::temp_dir().join("windtunnel-emulator");
    let mut all = Vec::new();
    for device in [Device::emulated(&folder), Device::gpu(0)] {
        match device {
            Ok(device) => all.push(device),
            Err(error) => println!("skipped: {error}"),
        }
    }
    all
}

fn text(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::from_seed(seed);
    (0..n).map(|_| rng.below(vocab as u64) as u32).collect()
}

fn take(backend: &mut dyn Backend, tokens: usize) -> Vec<u32> {
    (0..tokens.div_ceil(16))
        .map(|_| backend.take_page().unwrap().unwrap())
        .collect()
}

/// Distance over size.
fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// Weights that are the same in 16 bits.
fn rounded(config: &ModelConfig) -> Weights {
    let random = Weights::random(config, 5).unwrap();
    let tensors = random.tensors().map(|(name, tensor)| {
        let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let numbers: Vec<f32> = numbers
            .into_iter()
            .map(|x| half::bf16::from_f32(x).to_f32())
            .collect();
        let device = &candle_core::Device::Cpu;
        let tensor = candle_core::Tensor::from_vec(numbers, tensor.dims(), device).unwrap();
        (name.to_owned(), tensor)
    });
    Weights::from_tensors(tensors.collect(), config).unwrap()
}

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

/// Takes pages, reads a prompt, decodes directly and by a graph, stores a page again, embeds, and fetches logits.
fn work(gpu: &mut CudaBackend) -> Result<(), crate::error::ReferenceError> {
    let Some(pages) = gpu.take_pages(2)? else {
        return Ok(());
    };
    let tokens = text(24, 131, 3);
    for (start, end) in [(0, 20), (20, 21), (21, 22), (22, 23)] {
        let span = crate::backend::greedy(&tokens[start..end], start, &pages);
        gpu.step(&[span], &mut Vec::new())?;
    }
    gpu.convert_page(pages[0], KvFormat::Fp8)?;
    gpu.embed(&tokens)?;
    gpu.logits()?;
    gpu.take_page()?;
    Ok(())
}

#[test]
fn a_device_that_is_lost_at_any_call_is_an_error_that_names_it_and_what_it_did() {
    let config = ModelConfig {
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 64,
        vocab_size: 131,
        ..ModelConfig::pocket_light()
    };
    let weights = Weights::random(&config, 5).unwrap();
    let source = Source::Host(&weights);
    let folder = std::env::temp_dir().join("windtunnel-emulator");
    let Ok(device) = Device::emulated(&folder) else {
        return println!("skipped: no emulator");
    };
    let open = || CudaBackend::on(device.clone(), &config, source, &MEMORY, OPTIONS);
    let (mut operations, mut calls) = (std::collections::BTreeSet::new(), 0);
    // Until a call so late that the work is done before it.
    loop {
        device.lose_after(u64::MAX);
        let mut gpu = open().unwrap();
        device.lose_after(calls);
        let Err(error) = work(&mut gpu) else {
            break;
        };
        let text = error.to_string();
        let operation = text.strip_suffix(" failed: the device is lost");
        let operation = operation.and_then(|t| {
            t.strip_prefix("emulator, compute capability 0.0, driver for CUDA 0.0: ")
        });
        operations.insert(
            operation
                .unwrap_or_else(|| panic!("{calls}: {text}"))
                .to_owned(),
        );
        // What comes after fails too, and nothing panics when it goes.
        assert!(work(&mut gpu).is_err());
        calls += 1;
    }
    assert!(calls > 40, "{calls}");
    for operation in [
        "launching a kernel",
        "launching a graph",
        "a product",
        "copying to the device",
        "copying from the device",
    ] {
        assert!(operations.contains(operation), "{operations:?}");
    }
    // Nor is a model put on a device that goes meanwhile.
    for calls in [0, 3, 9, 20] {
        device.lose_after(calls);
        let text = open().unwrap_err().to_string();
        assert!(text.contains("failed: the device is lost"), "{text}");
    }
    device.lose_after(u64::MAX);
    work(&mut open().unwrap()).unwrap();
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
fn what_does_not_fit_is_refused_with_the_limit() {
    let weights = Weights::random(&config(), 5).unwrap();
    let source = Source::Host(&weights);
    for device in devices() {
        let open = |config: &ModelConfig, memory: KvMemory| {
            let error = CudaBackend::on(device.clone(), config, source, &memory, OPTIONS);
            error.err().map(|e| e.to_string()).unwrap_or_default()
        };
        let with = |change: &dyn Fn(&mut ModelConfig)| {
            let mut config = config();
            change(&mut config);
            config
        };
        let odd = with(&|c| c.head_dim = 48);
        assert!(open(&odd, MEMORY).contains("head_dim"));
        let odd = with(&|c| c.num_key_value_heads = 4);
        assert!(open(&odd, MEMORY).contains("num_key_value_heads"));
        let odd = with(&|c| c.hidden_size = 130);
        assert!(open(&odd, MEMORY).contains("hidden_size"));
        let pages = KvMemory {
            page_tokens: 32,
            ..MEMORY
        };
        assert!(open(&config(), pages).contains("page_tokens"));
        let exact = KvMemory {
            filling: KvFormat::F32,
            ..MEMORY
        };
        assert!(open(&config(), exact).contains("filling"));
        let many = KvMemory {
            pages: 1 << 26,
            ..MEMORY
        };
        let (_, total) = device.memory().unwrap();
        let text = open(&config(), many);
        assert!(
            text.contains("are free") && text.contains("fewer pages"),
            "{text} of {total}"
        );

        let mut gpu = CudaBackend::on(device.clone(), &config(), source, &MEMORY, OPTIONS).unwrap();
        let page = take(&mut gpu, 16);
        let span = Span {
            tokens: &[1],
            start: 0,
            pages: &page,
            sample: None,
            layers: None,
        };
        let mut refused =
            |span: Span<'_>| gpu.step(&[span], &mut Vec::new()).unwrap_err().to_string();
        assert!(
            refused(Span {
                tokens: &[258],
                ..span
            })
            .contains("no token 258")
        );
        assert!(refused(Span { start: 512, ..span }).contains("position 513"));
        assert!(refused(Span { start: 16, ..span }).contains("needs 2 pages"));
        assert!(
            refused(Span {
                pages: &[63],
                ..span
            })
            .contains("page 63 is not in use")
        );
        gpu.convert_page(page[0], KvFormat::Fp8).unwrap();
        let text = gpu.step(&[span], &mut Vec::new()).unwrap_err().to_string();
        assert!(text.contains("has 8 bits"), "{text}");
        assert!(gpu.convert_page(page[0], KvFormat::F32).is_err());
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

#[test]
fn a_measurement_covers_everything_it_was_asked_for() {
    let config = ModelConfig {
        num_hidden_layers: 1,
        ..config()
    };
    let plan = measure::BenchPlan {
        batches: vec![1, 3],
        context: 20,
        prefills: vec![24],
        formats: vec![KvFormat::F16, KvFormat::Fp8, KvFormat::Int8],
        repeats: 1,
        steps: 2,
        sweep: 1 << 16,
        square: 64,
    };
    for device in devices() {
        let options = CudaOptions {
            numbers: Numbers::Bf16,
            rows: 24,
            spans: 3,
            ..OPTIONS
        };
        let source = Source::Seed(3);
        let mut gpu = CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
        let figures = measure::bench(&mut gpu, &plan, "a day").unwrap();
        assert_eq!(gpu.kv_bytes(), 0, "all pages were given back");
        // Batches, each with and without graphs.
        let calls: Vec<(usize, bool, u64)> = figures
            .decode
            .iter()
            .map(|p| (p.batch, p.graph, p.calls))
            .collect();
        // Embedding, norm, product, rotation, attention, product, norm, gate, product; norm, head, sampling.
        let direct = figures.decode[1].calls;
        assert!((12..=13).contains(&direct), "{direct}");
        assert_eq!(calls[0], (1, true, 1));
        assert_eq!(calls[2], (3, true, 1));
        assert_eq!((calls[1].1, calls[3].1), (false, false));
        assert_eq!((figures.prefill.len(), figures.prefill[0].tokens), (1, 24));
        let formats: Vec<KvFormat> = figures.attention.iter().map(|p| p.format).collect();
        assert_eq!(formats, plan.formats);
        assert!(figures.attention.iter().all(|p| p.batch == 3));
        // Five matrices at 1 and 3 rows; four at 24, as the head has the asked rows only.
        assert_eq!(figures.products.len(), 14);
        let shares = figures
            .decode
            .iter()
            .chain(&figures.prefill)
            .map(|p| p.share);
        assert!(
            shares
                .chain([figures.floor.gemm_flops_per_s])
                .all(|x| x > 0.0 && x.is_finite())
        );
        // The same from text: it is kept as a file.
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(
            serde_json::from_str::<measure::GpuBench>(&text).unwrap(),
            figures
        );
        assert!(text.contains("a day"));

        // Too few pages: said, and given back.
        let plan = measure::BenchPlan {
            batches: vec![60],
            ..plan.clone()
        };
        let error = measure::bench(&mut gpu, &plan, "a day").unwrap_err();
        assert!(
            error.to_string().contains("60 sequences of 21 tokens"),
            "{error}"
        );
        assert_eq!(gpu.kv_bytes(), 0);
    }
}
