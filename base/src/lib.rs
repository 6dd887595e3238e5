//! Time, order, chance, and the words all crates share. Knows nothing of LLM serving beyond
//! the names of things.

/// Simulated time in whole nanoseconds; the only float conversions.
pub mod time;
/// The event queue: by time, class, then sequence; cancellation.
pub mod queue;
/// A priority queue for times that stays fast with a million entries.
pub mod ladder;
/// One named random generator; one stream per purpose and entity, from one seed.
pub mod rng;
/// The generator of Go, for reproducing systems that draw from it.
pub mod go_rand;
/// Samplers that draw the same on every platform.
pub mod sample;
/// Dense ids.
pub mod ids;
/// Where things are kept, by id.
pub mod directory;
/// Money and energy as integers.
pub mod units;
/// Quantities as users write them: `"250ms"`, `"24GiB"`, `"8 req/s"`.
pub mod quantity;
/// What a prompt is made of: extents of token streams, so that shared prefixes show.
pub mod content;
/// Which idle content is forgotten first.
pub mod eviction;
/// Why a request was turned away: said by engine, gateway and ledger.
pub mod refusal;
/// A hash over everything that happened, in order.
pub mod digest;
