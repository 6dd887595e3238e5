//! What can go wrong, with what to do.

/// Why a device cannot be used, or work on it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library, a device or a compiler is not there.
    #[error("{what} is not there: {looked}; {remedy}")]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        looked: String,
        /// What to do.
        remedy: String,
    },
    /// The device is there but not one that the kernels run on.
    #[error("{what}; {remedy}")]
    Unfit {
        /// What is wrong with it.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Memory of the device does not suffice.
    #[error("{needed} bytes were asked for and {available} are free on the device")]
    Memory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A kernel does not compile.
    #[error("a kernel does not compile:\n{log}")]
    Compile {
        /// What the compiler says.
        log: String,
    },
    /// The device or a library failed.
    #[error("{what} failed: {reason}")]
    Failed {
        /// The call.
        what: String,
        /// What it says.
        reason: String,
    },
    /// A call that does not fit the memory it names.
    #[error("{what}")]
    Misuse {
        /// What does not fit.
        what: String,
    },
}

impl CudaError {
    pub(crate) fn failed(what: &str, reason: impl std::fmt::Display) -> Self {
        Self::Failed {
            what: what.to_owned(),
            reason: reason.to_string(),
        }
    }
}
