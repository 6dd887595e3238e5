//! Where everything that happens is written down: laws look first, then digest, distributions, books.

use crate::fleet::machine::Machine;
use crate::fleet::meter::Meter;
use crate::laws::facts::Facts;
use crate::laws::{Laws, Verdict, Violation};
use crate::run::Step;
use crate::verification::Check;
use windtunnel_base::digest::RunDigest;
use windtunnel_base::ids::{ClassId, ReplicaId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::{MicroJoules, NanoUsd};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::engine::{EngineStats, StepObserver};
use windtunnel_ledger::account::{Account, Books};
use windtunnel_ledger::entry::{Entry, Fact};
use windtunnel_ledger::result::{Collector, Population, ReplicaTotals, Segment};

/// First guess of a segment's length; the ledger doubles it as a run gets long.
const FIRST_SEGMENT: SimDuration = SimDuration::from_millis(1);

/// Prices of tokens are per million.
const MILLION: u128 = 1_000_000;

/// Writes down a run.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Told and not yet written down: laws look at many faster than at each, and so does the digest.
    pending: Facts,
    /// Written down so far.
    facts: u64,
    digest: RunDigest,
    pub(super) collector: Collector,
    pub(super) laws: Option<Box<Laws>>,
    broken: Option<Box<Violation>>,
    meters: Vec<Meter>,
    /// Time for which each replica was not paid, ns.
    unpaid: Vec<u64>,
    /// Time that each replica's frontend takes for a token.
    per_token: Vec<SimDuration>,
    watch: Option<RequestId>,
    /// The works begun for it, whose facts are its own too.
    followed: Vec<RequestId>,
    watched: Vec<Entry>,
    /// Steps that were not told yet, if anybody listens.
    pub(super) steps: Option<Vec<Step>>,
    /// What checks have cost so far, in nano-dollars, counted apart from the books.
    checks: u64,
    /// What the gateway has cost so far, in nano-dollars, likewise.
    gateway: u64,
    /// Price of an hour of its instances, in nano-dollars.
    pub(super) gateway_hourly: u64,
    /// What tokens have cost so far, in millionths of a nano-dollar, likewise.
    tokens: u128,
}

/// What is written down of a whole run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) digest: String,
    pub(super) facts: u64,
    pub(super) collector: Collector,
    pub(super) replicas: Vec<ReplicaTotals>,
    /// Time for which each replica was not paid, ns.
    pub(super) unpaid: Vec<u64>,
    pub(super) watched: Vec<Entry>,
}

impl Recorder {
    pub(super) fn new<M: Machine>(
        machines: &[M],
        classes: usize,
        laws: bool,
        keep_rows: bool,
        watch: Option<RequestId>,
        log_steps: bool,
    ) -> Self {
        let meter = |m: &M| Meter::new(m.hourly_price().0, m.idle_microwatts(), m.is_station());
        Self {
            pending: Facts::default(),
            facts: 0,
            digest: RunDigest::default(),
            collector: Collector::new(classes, FIRST_SEGMENT, keep_rows),
            laws: laws.then(Box::default),
            broken: None,
            meters: machines.iter().map(meter).collect(),
            unpaid: vec![0; machines.len()],
            per_token: machines.iter().map(|m| m.frontend().per_token.0).collect(),
            watch,
            followed: Vec::new(),
            watched: Vec::new(),
            steps: log_steps.then(Vec::new),
            checks: 0,
            gateway: 0,
            gateway_hourly: 0,
            tokens: 0,
        }
    }

    /// Writes down a fact.
    #[inline(always)]
    pub(super) fn fact(&mut self, slot: u32, at: SimTime, request: RequestId, fact: Fact) {
        if self.pending.push(slot, at, request, fact) {
            self.write_down();
        }
        if self.watch.is_some() {
            self.watch_fact(Entry { at, request, fact });
        }
    }

    #[cold]
    fn watch_fact(&mut self, entry: Entry) {
        if self.watches(entry.request) {
            self.watched.push(entry);
        }
    }

    /// Whether every fact of a request is kept.
    pub(super) fn watches(&self, request: RequestId) -> bool {
        self.watch == Some(request) || self.followed.contains(&request)
    }

    /// A work begins for a call: if that is watched, so is the work.
    pub(super) fn follow(&mut self, call: RequestId, work: RequestId) {
        if self.watch == Some(call) {
            self.followed.push(work);
        }
    }

    /// Writes down what is pending: laws look first, then the digest takes it in.
    #[inline(never)]
    fn write_down(&mut self) {
        if self.pending.len() == 0 {
            return;
        }
        if let Some(laws) = &mut self.laws
            && let Err(violation) = laws.facts(&self.pending)
        {
            self.broken.get_or_insert(violation);
        }
        let digest = &mut self.digest;
        self.pending.bytes(|bytes| digest.absorb_bytes(bytes));
        self.facts += self.pending.len() as u64;
        self.pending.clear();
    }

    /// Keeps the first breach; the run stops before the next event. A breach that shows in the facts
    /// themselves stops it when those are written down, a few events later.
    #[inline]
    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            // What the facts before it show was first.
            self.write_down();
            self.broken.get_or_insert(violation);
        }
    }

    /// The first broken law, if any.
    #[inline]
    pub(super) fn verdict(&mut self) -> Verdict {
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Prompt tokens were found in cache.
    pub(super) fn cached(&mut self, at: SimTime, tokens: u32) {
        if tokens > 0 {
            self.collector.segment(at).books.prompt_tokens_cached += u64::from(tokens);
        }
    }

    /// A check of an answer of a class is paid.
    pub(super) fn check(&mut self, at: SimTime, class: ClassId, check: Check) {
        self.checks += check.price.0;
        self.collector.count(at, class, |p| p.checks += 1);
        let books = &mut self.collector.segment(at).books;
        let (from, to) = (Account::Source, Account::Verification);
        books.money.post(from, to, check.price.0);
        books.energy.post(from, to, check.energy.0);
    }

    /// A probe of a kernel is paid, which is no check of an answer before it is delivered.
    pub(super) fn probe(&mut self, at: SimTime, price: NanoUsd) {
        self.checks += price.0;
        let money = &mut self.collector.segment(at).books.money;
        money.post(Account::Source, Account::Verification, price.0);
    }

    /// Tokens are paid for by a tenant, in millionths of a nano-dollar; what is over waits for the next.
    pub(super) fn pay_tokens(&mut self, at: SimTime, tenant: TenantId, millionths: u128) {
        self.collector.charge(at, tenant, millionths);
        let paid = self.tokens / MILLION;
        self.tokens += millionths;
        let amount = (self.tokens / MILLION - paid) as u64;
        let money = &mut self.collector.segment(at).books.money;
        money.post(Account::Source, Account::Tokens, amount);
    }

    /// The gateway's stages have cost something.
    #[inline]
    pub(super) fn gateway(&mut self, at: SimTime, price: NanoUsd) {
        if price.0 > 0 {
            self.gateway += price.0;
            let money = &mut self.collector.segment(at).books.money;
            money.post(Account::Source, Account::Gateway, price.0);
        }
    }

    /// A request was sent to a replica.
    pub(super) fn dispatched(&mut self, replica: ReplicaId, prompt_tokens: u32) {
        let totals = &mut self.meters[replica.index()].totals;
        totals.requests += 1;
        totals.prompt_tokens += u64::from(prompt_tokens);
    }

    /// Listens to a replica.
    #[inline]
    pub(super) fn observer(&mut self, replica: usize) -> Listener<'_> {
        Listener {
            meter: &mut self.meters[replica],
            collector: &mut self.collector,
            steps: self.steps.as_mut(),
            replica,
            per_token: self.per_token[replica],
        }
    }

    /// The step told last ended with the replica in this state.
    #[inline]
    pub(super) fn step_left(&mut self, state: impl FnOnce() -> EngineStats) {
        if let Some(last) = self.steps.as_mut().and_then(|steps| steps.last_mut()) {
            last.after = Some(state());
        }
    }

    /// A replica has something under way from `now` on, or nothing.
    #[inline]
    pub(super) fn serving(&mut self, replica: usize, now: SimTime, serving: bool) {
        self.meters[replica].serving(&mut self.collector, now, serving);
    }

    /// A replica is paid from `now` on, or no more.
    pub(super) fn pay(&mut self, replica: usize, now: SimTime, paid: bool) {
        let meter = &mut self.meters[replica];
        if paid {
            self.unpaid[replica] += meter.resume(now);
        } else {
            meter.pause(&mut self.collector, now);
        }
    }

    /// Counts nothing that replicas do after `end`.
    pub(super) fn cut(&mut self, end: SimTime) {
        self.meters.iter_mut().for_each(|m| m.cut(end));
    }

    /// Pays for the gateway's instances: their price times the length of the run, rounded down once,
    /// each segment its part.
    fn pay_gateway(&mut self, end: SimTime) {
        if self.gateway_hourly == 0 {
            return;
        }
        const HOUR: u128 = 3_600_000_000_000;
        let owed = |at: u64| (u128::from(self.gateway_hourly) * u128::from(at) / HOUR) as u64;
        // The last segment is there before they are counted.
        self.collector.segment(end);
        let (length, count) = (self.collector.segment_ns(), self.collector.segments().len());
        for i in 0..count as u64 {
            let from = (i * length).min(end.as_nanos());
            let last = i + 1 == count as u64;
            let to = if last {
                end.as_nanos()
            } else {
                ((i + 1) * length).min(end.as_nanos())
            };
            let amount = owed(to) - owed(from);
            let segment = self.collector.segment(SimTime::from_nanos(from));
            let money = &mut segment.books.money;
            money.post(Account::Source, Account::Gateway, amount);
            self.gateway += amount;
        }
    }

    /// Ends the run: pays the rest of the time, closes digest and books.
    pub(super) fn finish(mut self, end: SimTime) -> Result<Record, Box<Violation>> {
        self.write_down();
        self.verdict()?;
        self.pay_gateway(end);
        for (meter, unpaid) in self.meters.iter_mut().zip(&mut self.unpaid) {
            *unpaid += meter.finish(&mut self.collector, end);
        }
        let mut all = Segment::default();
        for segment in self.collector.segments() {
            all.books.merge(&segment.books);
        }
        absorb_books(&mut self.digest, &all.books);
        if let Some(laws) = &self.laws {
            let mut counted = Population::default();
            for segment in self.collector.segments() {
                counted.merge(&segment.all);
            }
            laws.conservation.finish(end, &counted)?;
            let owed = crate::laws::books::Owed {
                replicas: (self.meters.iter().zip(&self.unpaid))
                    .map(|(meter, &unpaid)| meter.owed(end, unpaid))
                    .sum(),
                verification: self.checks,
                gateway: self.gateway,
                tokens: (self.tokens / MILLION) as u64,
                overlaps: self.meters.iter().map(Meter::overlaps).sum(),
            };
            let books = self.collector.segments().iter().map(|s| &s.books);
            crate::laws::books::finish(end, books, owed)?;
        }
        self.verdict()?;
        Ok(Record {
            digest: self.digest.hex(),
            facts: self.facts,
            collector: self.collector,
            replicas: self.meters.iter().map(|m| m.totals).collect(),
            unpaid: self.unpaid,
            watched: self.watched,
        })
    }
}

fn absorb_books(digest: &mut RunDigest, books: &Books) {
    // Accounts that came later count only where something was posted: what has no such costs keeps
    // its digest.
    let later = [Account::Gateway, Account::Tokens];
    let used = |a: &Account| !later.contains(a) || books.money.received(*a) > 0;
    for account in Account::ALL.into_iter().filter(used) {
        digest.absorb([
            books.money.received(account),
            books.money.balance(account) as u64,
            books.energy.received(account),
            books.energy.balance(account) as u64,
        ]);
    }
    digest.absorb([
        books.prompt_tokens_computed,
        books.prompt_tokens_cached,
        books.output_tokens_generated,
        books.batch_padding,
    ]);
}

/// Hears the steps of one replica.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    meter: &'a mut Meter,
    collector: &'a mut Collector,
    steps: Option<&'a mut Vec<Step>>,
    replica: usize,
    /// What the replica's frontend adds to each gap.
    per_token: SimDuration,
}

impl StepObserver for Listener<'_> {
    #[inline]
    fn token_gap(&mut self, at: SimTime, class: ClassId, gap: SimDuration, count: u64) {
        if self.meter.counts(at) {
            self.collector.gap(at, class, gap + self.per_token, count);
        }
    }

    #[inline]
    fn step(
        &mut self,
        from: SimTime,
        to: SimTime,
        shape: &BatchShape,
        energy: MicroJoules,
        extrapolated: bool,
    ) {
        self.meter
            .step(self.collector, (from, to), shape, energy, extrapolated);
        if let Some(steps) = &mut self.steps {
            steps.push(Step {
                replica: ReplicaId::from(self.replica),
                from,
                to,
                shape: *shape,
                extrapolated,
                after: None,
            });
        }
    }
}
