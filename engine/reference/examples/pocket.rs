//! Trains a pocket model and says how it does.
use std::io::Write as _;
use std::time::Instant;
use windtunnel_reference::config::ModelConfig;
use windtunnel_reference::train::run::{Settings, score, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let mut config = if args[1] == "light" {
        ModelConfig::pocket_light()
    } else {
        ModelConfig::pocket_frontier()
    };
    if let Some(h) = args.get(5).and_then(|a| a.parse().ok()) {
        config.num_hidden_layers = h;
    }
    let settings = Settings {
        steps: args[2].parse()?,
        batch: args[3].parse()?,
        rate: args[4].parse()?,
        warm_up: 100,
        seed: 1,
    };
    let mut out = std::io::stdout();
    writeln!(out, "{} parameters", config.parameters())?;
    let begin = Instant::now();
    let vars = train(&config, &settings, &mut |step, loss, model| {
        let mut out = std::io::stdout();
        let _ = writeln!(
            out,
            "{step} {loss:.4} {:.0}s",
            begin.elapsed().as_secs_f64()
        );
        if step % 200 == 0
            && step > 0
            && let Ok(s) = score(model, 32, 99)
        {
            let _ = writeln!(out, "  {:.3} {:?}", s.mean, s.exact);
        }
    })?;
    vars.save("/tmp/pocket.safetensors")?;
    Ok(())
}
