//! Progress with manners: a bar on a terminal, a line now and then elsewhere, always on stderr.

use crate::common::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Reports how many of a known number of things are done.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Says nothing.
    Silent,
    /// Draws a bar on a terminal.
    Bar(ProgressBar),
    /// Prints a line every few seconds.
    Lines {
        what: String,
        total: u64,
        state: Mutex<(u64, Instant)>,
    },
}

/// Time between two lines where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(10);

impl Progress {
    /// For `total` units of `what`; silent if asked to be.
    pub(crate) fn new(what: &str, total: u64, silent: bool) -> Self {
        if silent || total == 0 {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines {
                what: what.to_owned(),
                total,
                state: Mutex::new((0, Instant::now())),
            };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} [{bar:32}] {percent:>3} %  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        Self::Bar(bar)
    }

    /// `n` more are done.
    pub(crate) fn add(&self, n: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.inc(n),
            Self::Lines { what, total, state } => {
                let Ok(mut state) = state.lock() else { return };
                state.0 += n;
                if state.1.elapsed() >= LINE_PERIOD {
                    state.1 = Instant::now();
                    say(format!("{what}: {} of {total}", state.0));
                }
            }
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
