//! Clients that try again.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::clients::{Jitter, MOST_LAYERS};
use crate::tree::Path;

/// More attempts than a client makes; each is work of its own.
const MOST_RETRIES: u32 = 100;

pub(super) fn clients(rules: &mut Rules<'_>) {
    let Some(clients) = rules.scenario.clients.clone() else {
        return;
    };
    let path = Path::of("clients");
    if let Some(timeout) = clients.attempt_timeout {
        rules.positive(&path.key("attempt_timeout"), timeout.0.as_secs_f64());
    }
    let retries = path.key("retries");
    let few = clients.retries.max <= MOST_RETRIES;
    rules.require(&retries.key("max"), few, "be 100 or less");
    let layers = (1..=MOST_LAYERS).contains(&clients.retries.layers);
    rules.require(&retries.key("layers"), layers, "lie between 1 and 4");
    let holds = clients.retries.factor.is_finite() && clients.retries.factor >= 1.0;
    rules.require(&retries.key("factor"), holds, "be 1 or more");
    if clients.retries.backoff > clients.retries.cap {
        let message = "the first wait is longer than the cap on all of them";
        rules.error(Code::Contradiction, &retries.key("backoff"), message);
    }
    if clients.retries.jitter != Jitter::None && clients.retries.backoff.0.is_zero() {
        let message = "there is no wait that chance could change: `backoff` is zero";
        rules.warn(Code::Pointless, &retries.key("jitter"), message);
    }
    if let Some(budget) = &clients.retry_budget {
        let path = path.key("retry_budget");
        let holds = budget.share.is_finite() && (0.0..=1000.0).contains(&budget.share);
        rules.require(&path.key("share"), holds, "lie between 0 and 1000");
        if clients.retries.max == 0 && clients.hedging.is_none() {
            let message =
                "a budget for retries, and nobody tries again: `clients.retries.max` is 0";
            rules.warn(Code::Pointless, &path, message);
        }
    }
    if let Some(throttling) = &clients.throttling {
        let path = path.key("throttling");
        let holds = throttling.k.is_finite() && throttling.k >= 1.0;
        rules.require(&path.key("k"), holds, "be 1 or more");
        rules.positive(&path.key("window"), throttling.window.0.as_secs_f64());
    }
    if let Some(hedging) = &clients.hedging {
        let path = path.key("hedging");
        let few = hedging.max <= MOST_RETRIES;
        rules.require(&path.key("max"), few, "be 100 or less");
        rules.positive(&path.key("after"), hedging.after.0.as_secs_f64());
    }
}
