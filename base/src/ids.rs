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

dense_ids! {
    /// A request: its rank in arrival order, and its row in the ledger. Never reused.
    RequestId
    /// A replica. Never reused, so a late message cannot reach a successor.
    ReplicaId
    /// A tenant of the scenario.
    TenantId
    /// A service class of the scenario, with its own objectives.
    ClassId
}
