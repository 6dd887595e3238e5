//! Everything outside a replica, under one clock: gateway, fleet, verification, laws. Knows no
//! files, threads or wall clocks.

/// What policies see.
pub mod view;
/// Between client and replica: admission, waiting, routing.
pub mod gateway;
