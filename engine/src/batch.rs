//! The shape of one step: the sums that cost models need, and nothing about single requests.

/// What one engine step computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchShape {
    /// Requests computing prompt tokens in this step.
    pub prefill_seqs: u32,
    /// New prompt tokens computed in this step, over those requests.
    pub prefill_tokens: u64,
    /// Tokens those requests had in KV before the step (cached or computed earlier).
    pub prefill_context: u64,
    /// Query-key pairs of prefill attention: sum of `t*c + t*(t+1)/2` with `t` new tokens after
    /// `c` in KV.
    pub prefill_pairs: u64,
    /// Sum of `t * prompt` with `t` new tokens of a request with `prompt` prompt tokens.
    pub prefill_prompt_products: u64,
    /// Sum of `t * t` over prefilling requests.
    pub prefill_squares: u64,
    /// Requests generating one token each.
    pub decode_seqs: u32,
    /// Tokens in KV of those requests, before the step.
    pub decode_context: u64,
    /// The largest of them; only kept for cost models that ask for it.
    pub decode_context_max: u32,
    /// Requests that emit a token in this step: decoding ones, and prefilling ones that finish
    /// their prompt.
    pub sampled: u32,
    /// Bytes moved between host and device for preemption by swap.
    pub swap_bytes: u64,
}

impl BatchShape {
    /// Tokens computed in this step.
    pub const fn tokens(&self) -> u64 {
        self.prefill_tokens + self.decode_seqs as u64
    }

    /// Requests in this step.
    pub const fn seqs(&self) -> u32 {
        self.prefill_seqs + self.decode_seqs
    }
}
