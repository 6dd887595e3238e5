//! Dense ids: ranks into arenas. A tenant cannot be mistaken for a replica.

macro_rules! dense_ids {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u32);
        impl $name {
            /// The id as an index.
            #[inline]
            pub const fn index(self) -> usize { self.0 as usize }
        }
        impl From<usize> for $name {
            fn from(n: usize) -> Self { Self(n as u32) }
        }
    )* };
}

/// The least id of work that is no request of a client's: an attempt among several, or a stored answer
/// that is made anew. Such work has no row in the ledger.
pub const FIRST_WORK: u32 = 1 << 31;

impl RequestId {
    /// Whether this is work that is no request of a client's.
    #[inline]
    pub const fn is_work(self) -> bool {
        self.0 >= FIRST_WORK
    }
}

dense_ids! {
    /// A request: its rank in arrival order, and its row in the ledger; from [`FIRST_WORK`] on, a
    /// piece of work that is no request of a client's, in order of beginning. Never reused.
    RequestId
    /// A replica. Never reused, so a late message cannot reach a successor.
    ReplicaId
    /// A tenant of the scenario.
    TenantId
    /// A service class of the scenario, with its own objectives.
    ClassId
}
