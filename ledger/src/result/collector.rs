//! Makes a result's segments while a run happens.

use super::tenants::Places;
use super::{Phase, Population, Segment, Standing};
use crate::rows::{End, Row};
use windtunnel_base::ids::{ClassId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};

/// Segments are merged in pairs when there are more than this.
const MAX_SEGMENTS: usize = 32;

/// Collects a run while it happens. Memory does not grow with the number of requests unless rows
/// are kept.
#[derive(Debug)]
pub struct Collector {
    classes: usize,
    segment_ns: u64,
    segments: Vec<Segment>,
    /// Where the segment asked for last begins, and which it is: the next question is mostly for the
    /// same one, and needs no division.
    last: (u64, usize),
    phases: Vec<Phase>,
    /// Set if tenants are told apart.
    tenants: Option<Places>,
    keep_rows: bool,
    rows: Vec<Row>,
}

impl Collector {
    /// For so many classes; `first_segment` is the initial length of a segment, doubled whenever a
    /// run gets long.
    pub fn new(classes: usize, first_segment: SimDuration, keep_rows: bool) -> Self {
        Self {
            classes,
            segment_ns: first_segment.as_nanos().max(1),
            segments: Vec::new(),
            last: (0, 0),
            phases: Vec::new(),
            tenants: None,
            keep_rows,
            rows: Vec::new(),
        }
    }

    /// Tells the requests of tenants apart too.
    pub fn compare_tenants(&mut self) {
        self.tenants = Some(Places::default());
    }

    /// Adds a row to its tenant, in the segments that it was sent and answered in.
    #[cold]
    fn add_to_tenant(&mut self, row: &Row, standing: Standing) {
        let Some(places) = &mut self.tenants else {
            return;
        };
        let place = places.of(row.tenant);
        let sent = self.segment(SimTime::from_nanos(row.sent_ns));
        sent.tenant(place).add(row);
        if matches!(row.end, End::Finished) {
            let answered = self.segment(SimTime::from_nanos(row.ended_ns));
            answered.tenant(place).deliver(row, standing);
        }
    }

    /// A tenant was charged for tokens, in millionths of a nano-dollar.
    pub fn charge(&mut self, at: SimTime, tenant: TenantId, millionths: u128) {
        if let Some(places) = &mut self.tenants {
            let place = places.of(tenant.0);
            self.segment(at).tenant(place).token_charges += millionths;
        }
    }

    /// The tenants that were told apart, by their places in segments.
    pub fn take_tenants(&mut self) -> Vec<u32> {
        let places = self.tenants.take();
        places.map_or(Vec::new(), Places::finish)
    }

    /// Tells requests sent before, during and after `disturbance` apart too; nothing before `begin`.
    pub fn compare_phases(&mut self, begin: SimTime, disturbance: (SimTime, SimTime)) {
        let (from, to) = disturbance;
        let bounds = [begin, from.max(begin), to.max(begin), SimTime::MAX];
        let names = ["before", "during", "after"];
        self.phases = names
            .iter()
            .zip(bounds.windows(2))
            .map(|(name, bounds)| Phase {
                name: (*name).to_owned(),
                from_ns: bounds[0].as_nanos(),
                to_ns: bounds[1].as_nanos(),
                all: Population::default(),
                classes: Segment::new(self.classes).classes,
            })
            .collect();
    }

    /// Adds a row to the phases that it was sent and answered in.
    #[cold]
    fn add_to_phases(&mut self, row: &Row, standing: Standing) {
        let class = row.class as usize;
        for phase in &mut self.phases {
            if phase.holds(row.sent_ns) {
                phase.all.add(row);
                phase
                    .classes
                    .get_mut(class)
                    .into_iter()
                    .for_each(|c| c.add(row));
            }
            if row.end == End::Finished && phase.holds(row.ended_ns) {
                phase.all.deliver(row, standing);
                let class = phase.classes.get_mut(class);
                class.into_iter().for_each(|c| c.deliver(row, standing));
            }
        }
    }

    /// The present length of a segment, ns; only ever doubles.
    pub const fn segment_ns(&self) -> u64 {
        self.segment_ns
    }

    /// The segments so far.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment that `at` falls into.
    #[inline]
    pub fn segment(&mut self, at: SimTime) -> &mut Segment {
        let (begin, index) = self.last;
        let within = at.as_nanos().wrapping_sub(begin) < self.segment_ns;
        let index = if within && index < self.segments.len() {
            index
        } else {
            self.find(at)
        };
        &mut self.segments[index]
    }

    /// The number of the segment that `at` falls into, which is there then.
    fn find(&mut self, at: SimTime) -> usize {
        let mut index = at.as_nanos() / self.segment_ns;
        while index >= MAX_SEGMENTS as u64 {
            self.halve();
            index = at.as_nanos() / self.segment_ns;
        }
        self.last = (index * self.segment_ns, index as usize);
        while self.segments.len() <= self.last.1 {
            self.segments.push(Segment::new(self.classes));
        }
        self.last.1
    }

    /// Merges segments in pairs, which makes them twice as long.
    #[cold]
    fn halve(&mut self) {
        self.segment_ns *= 2;
        let mut merged = Vec::with_capacity(MAX_SEGMENTS);
        let mut old = std::mem::take(&mut self.segments).into_iter();
        while let Some(mut a) = old.next() {
            if let Some(b) = old.next() {
                a.absorb(b);
            }
            merged.push(a);
        }
        self.segments = merged;
    }

    /// Adds a request that has ended.
    pub fn row(&mut self, row: &Row, standing: Standing) {
        let segment = self.segment(SimTime::from_nanos(row.sent_ns));
        segment.all.add(row);
        if let Some(class) = segment.classes.get_mut(row.class as usize) {
            class.add(row);
        }
        if matches!(row.end, End::Finished) {
            let segment = self.segment(SimTime::from_nanos(row.ended_ns));
            segment.all.deliver(row, standing);
            if let Some(class) = segment.classes.get_mut(row.class as usize) {
                class.deliver(row, standing);
            }
        }
        if !self.phases.is_empty() {
            self.add_to_phases(row, standing);
        }
        if self.tenants.is_some() {
            self.add_to_tenant(row, standing);
        }
        if self.keep_rows {
            self.rows.push(*row);
        }
    }

    /// Counts something about requests of a class that happened at `at`.
    pub fn count(&mut self, at: SimTime, class: ClassId, add: impl Fn(&mut Population)) {
        let segment = self.segment(at);
        add(&mut segment.all);
        if let Some(class) = segment.classes.get_mut(class.index()) {
            add(class);
        }
        let phases = self.phases.iter_mut();
        for phase in phases.filter(|phase| phase.holds(at.as_nanos())) {
            add(&mut phase.all);
            if let Some(class) = phase.classes.get_mut(class.index()) {
                add(class);
            }
        }
    }

    /// Adds `count` gaps between tokens.
    #[inline]
    pub fn gap(&mut self, at: SimTime, class: ClassId, gap: SimDuration, count: u64) {
        let segment = self.segment(at);
        segment.all.itl.record(gap.as_nanos(), count);
        if let Some(class) = segment.classes.get_mut(class.index()) {
            class.itl.record(gap.as_nanos(), count);
        }
    }

    /// The phases, if they were asked for, the last of them ended at `end`.
    pub fn take_phases(&mut self, end: SimTime) -> Vec<Phase> {
        let mut phases = std::mem::take(&mut self.phases);
        for phase in &mut phases {
            phase.to_ns = phase.to_ns.min(end.as_nanos());
            phase.from_ns = phase.from_ns.min(phase.to_ns);
        }
        phases
    }

    /// Ends the collection: segments, their length, rows in order of request.
    pub fn finish(mut self) -> (Vec<Segment>, u64, Vec<Row>) {
        self.rows.sort_unstable_by_key(|r| r.request);
        (self.segments, self.segment_ns, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLANK;
    use proptest::prelude::*;

    fn row(request: u32, sent_ns: u64, class: u32) -> Row {
        Row {
            request,
            class,
            sent_ns,
            end: End::Finished,
            first_token_ns: Some(sent_ns + 3),
            last_token_ns: Some(sent_ns + 10),
            ended_ns: sent_ns + 10,
            output_tokens: 2,
            ..BLANK
        }
    }

    proptest! {
        /// However often segments are merged, each request is in the segment of its sending, classes
        /// add up, and nothing is lost.
        #[test]
        fn segments_hold_what_was_sent_in_them(
            sent in prop::collection::vec((0..100_000_u64, 0..3_u32), 0..200),
            first in 1..5_000_u64,
        ) {
            let mut collector = Collector::new(3, SimDuration::from_nanos(first), true);
            for (request, &(at, class)) in sent.iter().enumerate() {
                collector.row(&row(request as u32, at, class), Standing::default());
            }
            let (segments, segment_ns, rows) = collector.finish();
            prop_assert!(segments.len() <= MAX_SEGMENTS);
            prop_assert!(segment_ns % first == 0 && (segment_ns / first).is_power_of_two());
            prop_assert_eq!(rows.len(), sent.len());
            for (i, segment) in segments.iter().enumerate() {
                let inside = |&&(at, _): &&(u64, u32)| at / segment_ns == i as u64;
                prop_assert_eq!(segment.all.sent as usize, sent.iter().filter(inside).count());
                let mut classes = Population::default();
                segment.classes.iter().for_each(|c| classes.merge(c));
                prop_assert_eq!(&classes, &segment.all);
            }
            let counted: u64 = segments.iter().map(|s| s.all.ttft.count()).sum();
            prop_assert_eq!(counted as usize, sent.len());
        }
    }

    /// Tenants add up to all, however many there are and however often segments are merged.
    #[test]
    fn tenants_add_up() {
        let mut collector = Collector::new(1, SimDuration::from_nanos(10), false);
        collector.compare_tenants();
        let tenants = 3 * crate::result::MAX_TENANTS as u32;
        for i in 0..1000 {
            let tenant = i % tenants;
            let row = Row {
                tenant,
                ..row(i, u64::from(i) * 7, 0)
            };
            collector.row(&row, Standing::default());
            collector.charge(SimTime::from_nanos(u64::from(i)), TenantId(tenant), 5);
        }
        let places = collector.take_tenants();
        assert_eq!(places, Vec::from_iter(0..crate::result::MAX_TENANTS as u32));
        let (segments, ..) = collector.finish();
        let mut all = Segment::default();
        segments.iter().for_each(|s| all.merge(s));
        assert_eq!(all.tenants.len(), places.len() + 1);
        assert_eq!(
            (all.tenants[0].sent, all.tenants[0].token_charges),
            (11, 55)
        );
        let mut together = Population::default();
        all.tenants.iter().for_each(|t| together.merge(t));
        assert_eq!(together.token_charges, 5000);
        together.token_charges = 0;
        assert_eq!(together, all.all);
    }

    #[test]
    fn one_class_is_not_kept_twice() {
        let mut collector = Collector::new(1, SimDuration::from_secs(1), false);
        collector.row(&row(0, 0, 0), Standing::default());
        let (segments, _, rows) = collector.finish();
        assert!(segments[0].classes.is_empty() && rows.is_empty());
        assert_eq!(segments[0].all.sent, 1);
    }
}
