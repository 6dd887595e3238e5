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
    /// Tokens those requests had in KV, those of each rounded up to a multiple of what the cost
    /// model asks for before they are summed; the plain sum if it asks for nothing.
    pub prefill_context_rounded: u64,
    /// Those of them that compute one token only.
    pub single_prefills: u32,
    /// Tokens those had in KV before the step.
    pub single_context: u64,
    /// Requests generating one token each.
    pub decode_seqs: u32,
    /// Tokens in KV of those requests, before the step.
    pub decode_context: u64,
    /// Most tokens in KV of any request that computes one token, generating or not; only kept
    /// for cost models that ask for it.
    pub context_max: u32,
    /// Sum of the squares of what each of them has in KV; only kept for cost models that ask for it.
    pub context_squares: u128,
    /// Requests that emit a token in this step: decoding ones, and prefilling ones that finish
    /// their prompt.
    pub sampled: u32,
    /// Bytes moved between host and device for preemption by swap.
    pub swap_bytes: u64,
    /// Tokens that a static batch has room for: those of this step, what prompts are padded with up to
    /// the longest, and one for each request that is done before its batch. Zero without such a batch.
    pub room: u64,
}

impl BatchShape {
    /// Tokens computed in this step.
    pub const fn tokens(&self) -> u64 {
        self.prefill_tokens + self.decode_seqs as u64
    }

    /// Makes it the shape `steps` steps later, if nobody joins or leaves and all requests generate.
    /// `spread` says that the largest context and the sum of squares are kept.
    #[inline]
    pub(crate) fn pass(&mut self, steps: u64, spread: bool) {
        if spread {
            let members = u64::from(self.decode_seqs);
            self.context_squares += growth_of_squares(steps, self.decode_context, members);
            self.context_max += steps as u32;
        }
        self.decode_context += steps * u64::from(self.decode_seqs);
    }

    /// Requests in this step.
    pub const fn seqs(&self) -> u32 {
        self.prefill_seqs + self.decode_seqs
    }
}

/// How much the sum of squares of `members` numbers with the sum `sum` grows when each grows by `by`.
#[inline]
pub(crate) fn growth_of_squares(by: u64, sum: u64, members: u64) -> u128 {
    let by = u128::from(by);
    by * (2 * u128::from(sum) + by * u128::from(members))
}
