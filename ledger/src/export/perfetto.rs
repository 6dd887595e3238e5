//! Perfetto traces: a process for the gateway and one for each replica, with as many lanes as
//! requests were there at once, and counters. Written packet by packet, so size costs no memory;
//! names are interned. Field numbers are those of `perfetto/trace/trace_packet.proto` and the
//! files it includes.

use super::protobuf::Message;
use crate::format::FormatError;
use crate::result::{RunResult, Sample};
use crate::rows::Row;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::Write;

/// What to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Only requests whose life touches this stretch of time, and samples within it, ns.
    pub window: Option<(u64, u64)>,
    /// Time from a replica to the client, ns: rows know when a first token reached the client,
    /// the trace shows when it left the replica.
    pub return_ns: u64,
}

/// Interned names: their numbers are their ranks, from 1.
const NAMES: [&str; 4] = ["gateway", "queue", "prefill", "decode"];
const GATEWAY: u64 = 1;
const QUEUE: u64 = 2;
const PREFILL: u64 = 3;
const DECODE: u64 = 4;
/// Interned names of annotations, likewise.
const ANNOTATIONS: [&str; 3] = ["request", "prompt_tokens", "output_tokens"];

const SEQUENCE: u64 = 1;
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const COUNTER: u64 = 4;

/// Writes the requests and samples of a run.
///
/// # Errors
/// Of the writer.
pub fn write(run: &RunResult, options: &Options, to: impl Write) -> Result<(), FormatError> {
    let mut trace = Trace::begin(to)?;
    let (from, until) = options.window.unwrap_or((0, u64::MAX));
    let mut rows: Vec<&Row> = run
        .rows
        .iter()
        .filter(|row| row.ended_ns >= from && row.sent_ns <= until)
        .collect();
    trace.process(0, "gateway")?;
    for replica in 0..run.replicas.len() {
        trace.process(replica as u64 + 1, &format!("replica {replica}"))?;
    }
    rows.sort_by_key(|row| (row.sent_ns, row.request));
    let mut lanes = Lanes::default();
    for row in &rows {
        trace.at_gateway(row, &mut lanes)?;
    }
    rows.retain(|row| row.replica.is_some() && row.accepted_ns.is_some());
    rows.sort_by_key(|row| (row.replica, row.accepted_ns, row.request));
    for row in &rows {
        trace.at_replica(row, options, &mut lanes)?;
    }
    for sample in &run.samples {
        if (from..=until).contains(&sample.at_ns) {
            trace.sample(sample)?;
        }
    }
    trace.to.flush()?;
    Ok(())
}

/// Lanes of each process: free from a certain time on. A request takes the lowest lane that is
/// free, so there are as many as requests at once.
#[derive(Debug, Default)]
struct Lanes {
    by_process: BTreeMap<u64, Process>,
}

#[derive(Debug, Default)]
struct Process {
    lanes: u64,
    busy: BinaryHeap<Reverse<(u64, u64)>>,
    free: BinaryHeap<Reverse<u64>>,
}

impl Lanes {
    /// A lane for `from..until`, and whether it is new. Calls come by ascending `from`.
    fn take(&mut self, process: u64, from: u64, until: u64) -> (u64, bool) {
        let process = self.by_process.entry(process).or_default();
        while let Some(&Reverse((end, lane))) = process.busy.peek() {
            if end > from {
                break;
            }
            process.busy.pop();
            process.free.push(Reverse(lane));
        }
        let (lane, new) = match process.free.pop() {
            Some(Reverse(lane)) => (lane, false),
            None => {
                process.lanes += 1;
                (process.lanes - 1, true)
            }
        };
        process.busy.push(Reverse((until, lane)));
        (lane, new)
    }
}

/// Identifiers of tracks: process, kind, number.
const fn process_track(process: u64) -> u64 {
    process + 1
}

const fn lane_track(process: u64, lane: u64) -> u64 {
    (1 << 62) | (process << 32) | lane
}

const fn counter_track(process: u64, counter: u64) -> u64 {
    (1 << 61) | (process << 32) | counter
}

/// The trace as it is written.
struct Trace<W> {
    to: W,
    packet: Message,
    known_counters: BTreeSet<u64>,
}

impl<W: Write> Trace<W> {
    /// Begins with the names that later packets refer to.
    fn begin(to: W) -> Result<Self, FormatError> {
        let mut trace = Self {
            to,
            packet: Message::default(),
            known_counters: BTreeSet::new(),
        };
        trace.packet.uint(10, SEQUENCE);
        // SEQ_INCREMENTAL_STATE_CLEARED: what is interned so far is void.
        trace.packet.uint(13, 1);
        trace.packet.message(12, |interned| {
            for (field, names) in [(2, &NAMES[..]), (3, &ANNOTATIONS[..])] {
                for (rank, name) in names.iter().enumerate() {
                    interned.message(field, |m| {
                        m.uint(1, rank as u64 + 1).data(2, name.as_bytes());
                    });
                }
            }
        });
        trace.write_packet()?;
        Ok(trace)
    }

    /// Writes the packet as a field of the trace, and empties it.
    fn write_packet(&mut self) -> Result<(), FormatError> {
        let mut head = Message::default();
        head.data(1, self.packet.bytes());
        self.to.write_all(head.bytes())?;
        self.packet.clear();
        Ok(())
    }

    fn process(&mut self, process: u64, name: &str) -> Result<(), FormatError> {
        self.packet.uint(10, SEQUENCE).message(60, |track| {
            track.uint(1, process_track(process)).message(3, |p| {
                p.uint(1, process + 1).data(6, name.as_bytes());
            });
        });
        self.write_packet()
    }

    fn lane(&mut self, process: u64, lane: u64) -> Result<(), FormatError> {
        self.packet.uint(10, SEQUENCE).message(60, |track| {
            track
                .uint(1, lane_track(process, lane))
                .data(2, format!("lane {lane:04}").as_bytes())
                .uint(5, process_track(process));
        });
        self.write_packet()
    }

    /// One end of a slice. `extra` adds to the event.
    fn slice(
        &mut self,
        at: u64,
        kind: u64,
        track: u64,
        extra: impl FnOnce(&mut Message),
    ) -> Result<(), FormatError> {
        self.packet.uint(8, at).uint(10, SEQUENCE);
        // SEQ_NEEDS_INCREMENTAL_STATE: it refers to interned names.
        self.packet.uint(13, 2).message(11, |event| {
            event.uint(9, kind).uint(11, track);
            extra(event);
        });
        self.write_packet()
    }

    /// The time at the gateway; an arrow leads from it to the replica.
    fn at_gateway(&mut self, row: &Row, lanes: &mut Lanes) -> Result<(), FormatError> {
        let end = row.dispatched_ns.unwrap_or(row.ended_ns).max(row.sent_ns);
        let (lane, new) = lanes.take(0, row.sent_ns, end);
        if new {
            self.lane(0, lane)?;
        }
        let track = lane_track(0, lane);
        self.slice(row.sent_ns, SLICE_BEGIN, track, |event| {
            event.uint(10, GATEWAY);
            annotate(event, row);
            if row.accepted_ns.is_some() {
                event.fixed(47, u64::from(row.request) + 1);
            }
        })?;
        self.slice(end, SLICE_END, track, |_| {})
    }

    /// The time at the replica: in its queue, until the first token, until the last.
    fn at_replica(
        &mut self,
        row: &Row,
        options: &Options,
        lanes: &mut Lanes,
    ) -> Result<(), FormatError> {
        let (Some(replica), Some(accepted)) = (row.replica, row.accepted_ns) else {
            return Ok(());
        };
        let process = u64::from(replica) + 1;
        let end = row.generated_ns.unwrap_or(row.ended_ns).max(accepted);
        let started = row.started_ns.unwrap_or(end).clamp(accepted, end);
        let first = row
            .first_token_ns
            .map_or(end, |at| at.saturating_sub(options.return_ns))
            .clamp(started, end);
        let (lane, new) = lanes.take(process, accepted, end);
        if new {
            self.lane(process, lane)?;
        }
        let track = lane_track(process, lane);
        let parts = [
            (QUEUE, accepted, started),
            (PREFILL, started, first),
            (DECODE, first, end),
        ];
        for (name, from, until) in parts {
            // The queue slice is written even if it is empty: the arrow ends there.
            if until > from || name == QUEUE {
                self.slice(from, SLICE_BEGIN, track, |event| {
                    event.uint(10, name);
                    annotate(event, row);
                    if name == QUEUE {
                        event.fixed(48, u64::from(row.request) + 1);
                    }
                })?;
                self.slice(until, SLICE_END, track, |_| {})?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample) -> Result<(), FormatError> {
        let at = sample.at_ns;
        self.counter(at, 0, 0, "waiting", u64::from(sample.gateway_waiting))?;
        self.counter(at, 0, 1, "in system", u64::from(sample.in_system))?;
        for (i, replica) in sample.replicas.iter().enumerate() {
            let process = i as u64 + 1;
            self.counter(at, process, 0, "queue", u64::from(replica.waiting))?;
            self.counter(at, process, 1, "running", u64::from(replica.running))?;
            if replica.kv_total > 0 {
                self.counter(at, process, 2, "KV blocks held", replica.kv_held)?;
            }
        }
        Ok(())
    }

    fn counter(
        &mut self,
        at: u64,
        process: u64,
        counter: u64,
        name: &str,
        value: u64,
    ) -> Result<(), FormatError> {
        let uuid = counter_track(process, counter);
        if self.known_counters.insert(uuid) {
            self.packet.uint(10, SEQUENCE).message(60, |track| {
                track.uint(1, uuid).data(2, name.as_bytes());
                track.uint(5, process_track(process)).message(8, |_| {});
            });
            self.write_packet()?;
        }
        self.slice(at, COUNTER, uuid, |event| {
            event.uint(30, value);
        })
    }
}

fn annotate(event: &mut Message, row: &Row) {
    let values = [row.request, row.prompt_tokens, row.output_tokens];
    for (rank, value) in values.into_iter().enumerate() {
        event.message(4, |a| {
            a.uint(1, rank as u64 + 1).uint(3, u64::from(value));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLANK;
    use crate::result::{ReplicaSample, ReplicaTotals};
    use crate::rows::End;

    /// The fields of a message: number and value, for integers and data alike.
    enum Value<'a> {
        Int(u64),
        Data(&'a [u8]),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Int(varint(&mut bytes)),
                1 => {
                    let (word, rest) = bytes.split_at(8);
                    bytes = rest;
                    Value::Int(u64::from_le_bytes(word.try_into().unwrap()))
                }
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (data, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Data(data)
                }
                kind => panic!("wire type {kind} is not written"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn int(fields: &[(u64, Value<'_>)], number: u64) -> Option<u64> {
        fields.iter().find_map(|(n, v)| match v {
            Value::Int(v) if *n == number => Some(*v),
            _ => None,
        })
    }

    fn data<'a>(fields: &[(u64, Value<'a>)], number: u64) -> Option<&'a [u8]> {
        fields.iter().find_map(|(n, v)| match v {
            Value::Data(d) if *n == number => Some(*d),
            _ => None,
        })
    }

    fn request(request: u32, sent: u64, end: u64) -> Row {
        Row {
            request,
            replica: Some(0),
            end: End::Finished,
            sent_ns: sent,
            dispatched_ns: Some(sent + 1),
            accepted_ns: Some(sent + 2),
            started_ns: Some(sent + 5),
            first_token_ns: Some(sent + 9),
            generated_ns: Some(end),
            ended_ns: end + 1,
            ..BLANK
        }
    }

    fn run() -> RunResult {
        RunResult {
            replicas: vec![ReplicaTotals::default()],
            // Two at once, then a third in the lane of the first.
            rows: vec![
                request(0, 100, 200),
                request(1, 150, 300),
                request(2, 220, 260),
            ],
            samples: vec![Sample {
                at_ns: 150,
                in_system: 2,
                replicas: vec![ReplicaSample {
                    running: 2,
                    kv_held: 7,
                    kv_total: 10,
                    ..ReplicaSample::default()
                }],
                ..Sample::default()
            }],
            ..RunResult::default()
        }
    }

    /// Events of each track `(at, kind)`, names of tracks, and the flows that begin and end.
    type Read = (
        BTreeMap<u64, Vec<(u64, u64)>>,
        Vec<String>,
        Vec<u64>,
        Vec<u64>,
    );

    fn read(bytes: &[u8]) -> Read {
        let (mut events, mut tracks, mut begin, mut end) = Read::default();
        for (number, packet) in fields(bytes) {
            assert_eq!(number, 1, "a trace holds packets only");
            let Value::Data(packet) = packet else {
                panic!("a packet is a message");
            };
            let packet = fields(packet);
            assert_eq!(int(&packet, 10), Some(SEQUENCE));
            if let Some(track) = data(&packet, 60) {
                let name = data(&fields(track), 2).unwrap_or(b"process");
                tracks.push(String::from_utf8(name.to_vec()).unwrap());
            }
            if let Some(event) = data(&packet, 11) {
                let event = fields(event);
                let at = int(&packet, 8).unwrap();
                let track = int(&event, 11).unwrap();
                let of_track: &mut Vec<_> = events.entry(track).or_default();
                of_track.push((at, int(&event, 9).unwrap()));
                begin.extend(int(&event, 47));
                end.extend(int(&event, 48));
            }
        }
        (events, tracks, begin, end)
    }

    #[test]
    fn lanes_are_as_many_as_requests_at_once() {
        let mut bytes = Vec::new();
        write(&run(), &Options::default(), &mut bytes).unwrap();
        let (events, tracks, begin, end) = read(&bytes);
        let lanes = tracks.iter().filter(|t| t.starts_with("lane")).count();
        assert_eq!(lanes, 1 + 2, "one at the gateway, two at the replica");
        // On each lane slices open and close in turn, in order of time.
        for (track, events) in events.iter().filter(|(t, _)| **t >> 62 == 1) {
            assert!(events.is_sorted_by_key(|e| e.0), "{track} {events:?}");
            let kinds: Vec<_> = events.iter().map(|e| e.1).collect();
            assert!(kinds.chunks(2).all(|pair| pair == [SLICE_BEGIN, SLICE_END]));
        }
        assert_eq!((begin.len(), begin), (3, end), "every arrow has both ends");
        let counters = events.values().flatten().filter(|e| e.1 == COUNTER);
        assert_eq!(counters.count(), 5);
    }

    #[test]
    fn a_window_leaves_out_what_is_outside() {
        let mut bytes = Vec::new();
        let options = Options {
            window: Some((210, 1_000)),
            return_ns: 0,
        };
        write(&run(), &options, &mut bytes).unwrap();
        let (events, _, begin, _) = read(&bytes);
        assert_eq!(begin, [2, 3], "requests 1 and 2 are still there");
        assert!(events.values().flatten().all(|e| e.1 != COUNTER));
    }
}
