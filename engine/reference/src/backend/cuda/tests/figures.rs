//! What the bench measures, and that it covers everything.

use super::*;

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
