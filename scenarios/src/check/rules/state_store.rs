//! The store that gateways share.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::fleet::Counted;
use crate::tree::Path;

pub(super) fn state_store(rules: &mut Rules<'_>) {
    let Some(store) = rules.scenario.gateway.state_store.clone() else {
        return;
    };
    let path = Path::of("gateway.state_store");
    let holds = (1..=64).contains(&store.gateways);
    rules.require(&path.key("gateways"), holds, "lie between 1 and 64");
    let (least, waits) = (store.round_trip.0 + store.service.0, store.timeout.0);
    if waits < least {
        let message = format!(
            "no answer can come in time: a gateway waits {}, and asking takes {} at least",
            store.timeout,
            windtunnel_base::quantity::Span(least)
        );
        rules.error(Code::Contradiction, &path.key("timeout"), message);
    }
    if store.gateways > 1 && rules.scenario.fleet.telemetry.counted == Counted::UntilLastStep {
        let message = "several gateways know of each other's requests until they are answered, not until their last step";
        let path = Path::of("fleet.telemetry.counted");
        rules.error(Code::Contradiction, &path, message).label = "write until_answered".to_owned();
    }
}
