//! L2 by drafts: the light model proposes some tokens, the frontier computes all of them in one step,
//! and those it would have chosen itself are kept, with the token it chooses after them.

/// How many drafts stand, and the frontier's token after them. `chosen[i]` is the frontier's token
/// after the first `i` drafts, so there is one more of them than drafts.
pub fn accept(drafts: &[u32], chosen: &[u32]) -> (usize, u32) {
    let kept = drafts
        .iter()
        .zip(chosen)
        .take_while(|(draft, choice)| draft == choice)
        .count();
    (
        kept,
        chosen
            .get(kept)
            .copied()
            .unwrap_or(windtunnel_tasks::tokenizer::EOS),
    )
}

/// Tokens per step at `drafts` drafts, each of which stands with probability `acceptance`
/// (V-T1: Leviathan et al. 2023).
pub fn expected_tokens(acceptance: f64, drafts: usize) -> f64 {
    (0..=drafts).map(|i| acceptance.powi(i as i32)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn drafts_stand_up_to_the_first_that_differs() {
        assert_eq!(accept(&[1, 2, 3], &[1, 2, 3, 4]), (3, 4));
        assert_eq!(accept(&[1, 9, 3], &[1, 2, 3, 4]), (1, 2));
        assert_eq!(accept(&[9], &[1, 2]), (0, 1));
        assert_eq!(accept(&[], &[5]), (0, 5));
    }

    #[test]
    fn tokens_per_step_are_those_of_the_catalogue() {
        // V-T1: independent drafts accepted with probability .8. 200,000 steps: four standard
        // errors are below 0.02.
        let mut rng = Rng::from_seed(2);
        for (drafts, want) in [(3_usize, 2.952), (5, 3.689), (7, 4.161)] {
            let steps = 200_000;
            let mut tokens = 0;
            for _ in 0..steps {
                let chosen: Vec<u32> = (0..=drafts).map(|_| u32::from(rng.chance(0.8))).collect();
                let (kept, _) = accept(&vec![1; drafts], &chosen);
                tokens += kept + 1;
            }
            let mean = tokens as f64 / f64::from(steps);
            assert!((mean - want).abs() < 0.02, "{drafts}: {mean}");
            assert!((expected_tokens(0.8, drafts) - want).abs() < 5e-4);
        }
    }
}
