//! The gateway's stages joined to the world: a request passes them in two parts, each in one go, and
//! the exact lookup happens between them.

use super::World;
use super::requests::Place;
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::gateway::pipeline::{Charge, Part, Passage, Passenger, Pipeline};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::SimDuration;
use windtunnel_ledger::gateway::StageKind;
use windtunnel_scenarios::schema::pipeline::PipelineSpec;

/// The stages, and what is known of the requests that have passed some of them.
pub(super) struct Stages {
    pub(super) pipeline: Pipeline,
    /// By slot.
    visits: Vec<Visit>,
}

/// A request's way through the stages.
#[derive(Clone, Copy, Default)]
struct Visit {
    elapsed: SimDuration,
    charge: Charge,
    /// The semantic lookup was left out.
    no_semantic: bool,
    /// The kernel lookup was left out.
    no_kernel: bool,
}

impl Stages {
    pub(super) fn new(spec: &PipelineSpec, streams: Streams) -> Self {
        Self {
            pipeline: Pipeline::new(spec, streams),
            visits: Vec::new(),
        }
    }

    fn visit(&mut self, slot: u32) -> &mut Visit {
        let i = slot as usize;
        if i >= self.visits.len() {
            self.visits.resize(i + 1, Visit::default());
        }
        &mut self.visits[i]
    }
}

impl<M: Machine> World<'_, M> {
    /// A request begins its way through the stages, `before` of which is not theirs.
    pub(super) fn first_stages(&mut self, slot: u32, before: SimDuration) {
        if let Some(stages) = &mut self.gateway.stages {
            *stages.visit(slot) = Visit::default();
        }
        let Some(passage) = self.pass(slot, Part::BeforeLookup) else {
            return;
        };
        let hop = match passage.refused {
            Some(reason) => Hop::TurnedAway(reason),
            None => Hop::Looked,
        };
        self.hop(slot, before + passage.took, hop);
    }

    /// The first part of the stages is over.
    pub(super) fn looked(&mut self, slot: u32) {
        if self.requests.get(slot).place == Place::Gone {
            return;
        }
        if self.answers.is_some() && self.ask(slot) {
            if let Some(stages) = &mut self.gateway.stages {
                let elapsed = stages.visit(slot).elapsed;
                stages.pipeline.ends_at_lookup(elapsed);
            }
            return;
        }
        self.last_stages(slot);
    }

    /// A request goes on from the lookup, whose way there is not its own.
    pub(super) fn go_on_from_lookup(&mut self, slot: u32) {
        let Some(stages) = &mut self.gateway.stages else {
            return self.after_lookup(slot);
        };
        *stages.visit(slot) = Visit::default();
        self.last_stages(slot);
    }

    /// A request that was not answered by a lookup goes on.
    pub(super) fn last_stages(&mut self, slot: u32) {
        let Some(passage) = self.pass(slot, Part::AfterLookup) else {
            return;
        };
        let hop = match passage.refused {
            Some(reason) => Hop::TurnedAway(reason),
            None => Hop::Ready,
        };
        self.hop(slot, passage.took, hop);
    }

    /// A request passes a part of the stages; nothing if there are none.
    fn pass(&mut self, slot: u32, part: Part) -> Option<Passage> {
        let stages = self.gateway.stages.as_mut()?;
        let flight = self.requests.get(slot);
        let arrival = &flight.arrival;
        let who = Passenger {
            request: flight.id,
            tenant: arrival.tenant,
            prompt_tokens: arrival.prompt_tokens,
            max_output_tokens: arrival.max_output_tokens,
            attack: arrival.truth.attack,
            fail: self.classes[arrival.class.index()].fail(),
            elapsed: stages.visit(slot).elapsed,
        };
        let passage = stages.pipeline.pass(part, &who, self.now);
        let visit = stages.visit(slot);
        visit.elapsed += passage.took;
        if part == Part::BeforeLookup {
            visit.charge = passage.charge;
        }
        visit.no_semantic |= passage.left_out(StageKind::SemanticLookup);
        visit.no_kernel |= passage.left_out(StageKind::KernelLookup);
        self.recorder.gateway(self.now, passage.price);
        Some(passage)
    }

    /// A stage turned a request away.
    pub(super) fn turned_away(&mut self, slot: u32, reason: windtunnel_base::refusal::Refusal) {
        if self.requests.get(slot).place != Place::Gone {
            self.refuse(slot, reason);
        }
    }

    /// Whether the semantic lookup was left out for a request, because the budget was over.
    pub(super) fn skipped_semantic(&mut self, slot: u32) -> bool {
        let stages = self.gateway.stages.as_mut();
        stages.is_some_and(|stages| stages.visit(slot).no_semantic)
    }

    /// Whether the kernel lookup was left out for a request.
    pub(super) fn skipped_kernel(&mut self, slot: u32) -> bool {
        let stages = self.gateway.stages.as_mut();
        stages.is_some_and(|stages| stages.visit(slot).no_kernel)
    }

    /// A request has ended: what its tenant was charged and it did not use is given back.
    pub(super) fn settle_charge(&mut self, slot: u32) {
        let Some(stages) = self.gateway.stages.as_mut() else {
            return;
        };
        let charge = std::mem::take(&mut stages.visit(slot).charge);
        if charge == Charge::default() {
            return;
        }
        let flight = self.requests.get(slot);
        let used = flight.used_tokens();
        let (prompt, output) = used;
        let tenant = flight.arrival.tenant;
        stages
            .pipeline
            .settle(tenant, charge, prompt, output, self.now);
    }
}
