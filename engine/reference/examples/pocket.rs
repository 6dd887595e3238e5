//! Trains a pocket model into a folder: `pocket frontier|light OUT [TEACHER]`.
use std::io::Write as _;
use std::ops::ControlFlow;
use windtunnel_reference::models::{Pocket, load};
use windtunnel_reference::train::pocket::{Plan, Report, settings, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let pocket = if args[1] == "light" {
        Pocket::Light
    } else {
        Pocket::Frontier
    };
    let mut settings = settings(pocket, 1);
    if let Some(steps) = args.get(4) {
        settings.steps = steps.parse()?;
    }
    if let Some(batch) = args.get(5) {
        settings.batch = batch.parse()?;
    }
    if let Some(rate) = args.get(6) {
        settings.rate = rate.parse()?;
    }
    let teacher = match args.get(3).map(String::as_str) {
        None | Some("-") => None,
        Some(name) => Some(load(name)?),
    };
    let (mut sum, mut steps, mut asked) = (0.0, 0, 0);
    let folder = std::path::Path::new(&args[2]);
    let plan = Plan::pocket(pocket, settings, teacher.as_ref());
    let card = train(&plan, folder, &mut |report| {
        let mut out = std::io::stdout();
        match report {
            Report::TakenUp(n) => {
                steps = n;
                let _ = writeln!(out, "taken up after {n} steps");
            }
            Report::Asked(n) => {
                asked += n;
                let _ = writeln!(out, "asked {asked}");
            }
            Report::Step(loss) => {
                (sum, steps) = (sum + loss, steps + 1);
                if steps % 25 == 0 {
                    let _ = writeln!(out, "{steps} {:.4}", sum / 25.0);
                    sum = 0.0;
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    writeln!(std::io::stdout(), "{card:?}")?;
    Ok(())
}
