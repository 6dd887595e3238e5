//! Exit codes: a contract, the same for all verbs. Interrupted processes end by the signal itself, which shells
//! show as 130.

/// Why the process ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Exit {
    /// Done; all thresholds and cases pass.
    Done = 0,
    /// Unexpected failure: files, crashes.
    Failure = 1,
    /// Wrong usage or scenario: nothing was run.
    Usage = 2,
    /// A threshold, case or gate failed.
    Failed = 3,
    /// Not enough evidence to decide.
    Undecided = 4,
    /// A law of the simulation was broken: a bug.
    BrokenLaw = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    /// The code to end with.
    pub(crate) exit: Exit,
    /// What to print on stderr, complete with remedy.
    pub(crate) message: String,
}

impl Stop {
    /// Wrong usage or input; nothing was run.
    pub(crate) fn usage(message: impl std::fmt::Display) -> anyhow::Error {
        Self {
            exit: Exit::Usage,
            message: message.to_string(),
        }
        .into()
    }

    /// A law was broken.
    pub(crate) fn law(message: impl std::fmt::Display) -> anyhow::Error {
        Self {
            exit: Exit::BrokenLaw,
            message: message.to_string(),
        }
        .into()
    }
}
