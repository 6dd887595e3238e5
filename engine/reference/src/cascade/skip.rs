//! L0: a turn whose state means what it meant when a turn was last run is not run again; its answer is
//! the answer given then.
//!
//! A state is its mean embedding beside hashed n-grams of its bytes. Embeddings see what a
//! text is about; n-grams see that one figure of it has changed, which a mean hardly moves. N-grams
//! with a figure weigh more, because a change of figures changes answers. The comparison is always
//! with the last turn that was *run*: small changes cannot add up unseen.

use super::{need, positive};
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use windtunnel_base::rng::mix64;
use windtunnel_tasks::{Severity, severity};

/// Parameters of L0.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SkipSettings {
    /// Changes below this are none; a change is between 0 and 2.
    pub threshold: f64,
    /// Bytes of an n-gram.
    pub ngram: usize,
    /// Buckets that n-grams are hashed to.
    pub buckets: usize,
    /// Weight of the n-grams beside the embedding, whose weight is 1.
    pub ngram_weight: f64,
    /// How often an n-gram with a figure counts.
    pub figure_weight: f64,
    /// A state that contains one of these is always run.
    pub markers: Vec<String>,
}

impl Default for SkipSettings {
    fn default() -> Self {
        Self {
            threshold: 0.12,
            ngram: 3,
            buckets: 512,
            ngram_weight: 1.0,
            figure_weight: 4.0,
            markers: ["URGENT", "ERROR", "ALERT"].map(String::from).to_vec(),
        }
    }
}

impl SkipSettings {
    pub(super) fn check(&self) -> Result<(), ReferenceError> {
        need(
            (0.0..=2.0).contains(&self.threshold),
            "skip.threshold",
            "a change is between 0 and 2",
            "take a number in that range",
        )?;
        need(
            self.ngram > 0 && self.buckets > 0,
            "skip.ngram",
            "n-grams need bytes and buckets",
            "take 1 or more of both",
        )?;
        positive(self.ngram_weight, "skip.ngram_weight")?;
        positive(self.figure_weight, "skip.figure_weight")
    }
}

/// A state as numbers: the embedding and the n-grams, each of length one.
#[derive(Clone, PartialEq, Debug)]
pub struct Features {
    embedding: Vec<f32>,
    ngrams: Vec<f32>,
}

/// The features of a state.
pub fn features(embedding: &[f32], text: &[u8], settings: &SkipSettings) -> Features {
    let mut ngrams = vec![0_f32; settings.buckets];
    for gram in text.windows(settings.ngram) {
        let hash = gram.iter().fold(0, |h, b| mix64(h ^ u64::from(*b)));
        let figure = gram.iter().any(|b| severity(*b) == Severity::Critical);
        let weight = if figure { settings.figure_weight } else { 1.0 };
        ngrams[(hash % settings.buckets as u64) as usize] += weight as f32;
    }
    Features {
        embedding: unit(embedding.to_vec()),
        ngrams: unit(ngrams),
    }
}

fn unit(mut x: Vec<f32>) -> Vec<f32> {
    let length = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|v| *v /= length);
    }
    x
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

/// How much a state has changed: one less the mean cosine, weighted; 0 for none.
pub fn delta(before: &Features, now: &Features, settings: &SkipSettings) -> f64 {
    let weight = settings.ngram_weight;
    let same =
        cosine(&before.embedding, &now.embedding) + weight * cosine(&before.ngrams, &now.ngrams);
    (1.0 - same / (1.0 + weight)).clamp(0.0, 2.0)
}

/// What becomes of a turn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Decision {
    /// It is run; the change is this, or there was no turn before.
    Run(Option<f64>),
    /// It is run because the state carries a danger marker.
    Danger,
    /// It is skipped; the change is this.
    Skip(f64),
}

/// Decides on a turn: `before` is the state of the last turn run.
pub fn decide(
    before: Option<&Features>,
    now: &Features,
    text: &str,
    threshold: f64,
    settings: &SkipSettings,
) -> Decision {
    if settings.markers.iter().any(|m| text.contains(m.as_str())) {
        return Decision::Danger;
    }
    let Some(before) = before else {
        return Decision::Run(None);
    };
    let change = delta(before, now, settings);
    if change < threshold {
        Decision::Skip(change)
    } else {
        Decision::Run(Some(change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Features {
        features(&[1.0, 0.5], text.as_bytes(), &SkipSettings::default())
    }

    #[test]
    fn the_same_state_is_no_change_and_more_change_is_more() {
        let s = SkipSettings::default();
        let base = of("Rona writes: my parcel 4821 came broken");
        assert!(delta(&base, &base, &s).abs() < 1e-6);
        let word = delta(&base, &of("Rona writes: my parcel 4821 came brokem"), &s);
        let figure = delta(&base, &of("Rona writes: my parcel 4827 came broken"), &s);
        let other = delta(&base, &of("weather in Saro for 12 days"), &s);
        assert!(
            0.0 < word && word < figure && figure < other,
            "{word} {figure} {other}"
        );
    }

    #[test]
    fn danger_is_always_run_and_the_first_turn_too() {
        let s = SkipSettings::default();
        let (a, text) = (of("all quiet"), "all quiet");
        assert_eq!(decide(None, &a, text, 2.0, &s), Decision::Run(None));
        assert_eq!(decide(Some(&a), &a, text, 0.1, &s), Decision::Skip(0.0));
        assert_eq!(
            decide(Some(&a), &a, "ALERT: quiet", 2.0, &s),
            Decision::Danger
        );
        assert!(matches!(
            decide(Some(&a), &a, text, 0.0, &s),
            Decision::Run(_)
        ));
    }

    #[test]
    fn a_higher_threshold_skips_whatever_a_lower_one_skips() {
        let s = SkipSettings::default();
        let base = of("send Rona 40 euros");
        for other in ["send Rona 41 euros", "send Rona 40 euros now", "pay Miro 7"] {
            let now = of(other);
            let skipped: Vec<bool> = (0..40)
                .map(|t| f64::from(t) * 0.05)
                .map(|t| matches!(decide(Some(&base), &now, other, t, &s), Decision::Skip(_)))
                .collect();
            assert!(skipped.windows(2).all(|w| w[0] <= w[1]));
        }
    }
}
