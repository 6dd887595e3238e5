//! What the layers have done under a scheduler, as it is told outside.

use super::LayeredExecutor;
use crate::cascade::between::Look;
use crate::cascade::skip::Decision;
use crate::kv::format::KvFormat;
use crate::runtime::executed;
use windtunnel_engine::execute::{Executed, Layers, Signals, Stored};

/// Counts of turns, and of tokens given out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    pub(super) looked_at: u64,
    pub(super) skipped: u64,
    pub(super) skipped_wrong: u64,
    pub(super) danger: u64,
    pub(super) tokens: u64,
}

impl Turns {
    pub(super) fn look(&mut self, look: &Look) {
        let Some(decision) = look.decision else {
            return;
        };
        self.looked_at += 1;
        self.skipped += u64::from(matches!(decision, Decision::Skip(_)));
        self.danger += u64::from(decision == Decision::Danger);
    }
}

impl LayeredExecutor {
    /// What was done so far, without what is compared afterwards.
    pub(super) fn executed(&self) -> Executed {
        let (work, seconds) = self.decoding.spent();
        let lanes = [&self.decoding.frontier, &self.decoding.light];
        Executed {
            tokens: self.turns.tokens,
            model_steps: lanes.iter().map(|l| l.tally.steps).sum(),
            model_sequences: lanes.iter().map(|l| l.tally.members).sum(),
            kv_mean_bytes: lanes.iter().map(|l| l.tally.kv_mean()).sum(),
            counted_seconds: seconds,
            layers: Some(self.layers_done()),
            ..executed(work)
        }
    }

    fn layers_done(&self) -> Layers {
        let (turns, tokens, between) = (self.turns, self.decoding.tokens, &self.between);
        let [answers, skips] = [self.decoding.found, between.skips];
        let (signals, _) = between.control.read();
        let (publications, lost_publications) = between.control.publications();
        let stored = |format| {
            let lanes = [&self.decoding.frontier, &self.decoding.light];
            let mut all = Stored::default();
            lanes.iter().for_each(|lane| all += lane.stored(format));
            all
        };
        Layers {
            on: self.decoding.settings.layers.as_array(),
            turns: turns.looked_at,
            skipped: turns.skipped,
            skipped_wrong: turns.skipped_wrong,
            danger_runs: turns.danger,
            computed_tokens: tokens.all,
            short_tokens: tokens.short,
            critical_short: tokens.critical_short,
            drafts: tokens.drafted,
            drafts_kept: tokens.drafts_kept,
            draft_steps: tokens.draft_steps,
            f16: stored(KvFormat::F16),
            int8: stored(KvFormat::Int8),
            fp8: stored(KvFormat::Fp8),
            accepted: answers.accepted + skips.accepted,
            checks: answers.verified + skips.verified,
            mismatches: answers.mismatches + skips.mismatches,
            false_accepts: answers.weighted + skips.weighted,
            checking_seconds: self.decoding.shadow.1,
            publications,
            lost_publications,
            signals: Signals {
                risk: signals.risk,
                novelty: signals.novelty,
                drift: signals.drift,
                confidence: signals.confidence,
            },
            skip_threshold: between.skip_at.value(),
            route_threshold: self.decoding.threshold.value(),
            // What was compared is known when the run is over.
            ..Layers::default()
        }
    }
}
