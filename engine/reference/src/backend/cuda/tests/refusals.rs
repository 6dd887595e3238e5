//! What does not fit is refused with the limit, and a device that is lost is named.

use super::*;

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
