//! Rows and samples in the formats of other tools.

/// Comma-separated values; also read back, as a trace.
pub mod csv;
/// JSON lines, one object per request.
pub mod jsonl;
/// Parquet, one column per field; also read back.
pub mod parquet;
/// Perfetto traces, for its viewer.
pub mod perfetto;
/// Steps of replicas, as CSV or Parquet.
pub mod steps;
/// Protobuf's wire format, as far as Perfetto needs it.
mod protobuf;

#[cfg(test)]
pub(crate) mod testing {
    use crate::entry::AnswerSource;
    use crate::format::{BLANK, Provenance, Requests};
    use crate::rows::{End, Row};
    use proptest::prelude::*;
    use windtunnel_base::refusal::Refusal;

    fn any_end() -> impl Strategy<Value = End> {
        (0..3 + Refusal::ALL.len()).prop_map(|i| match i {
            0 => End::Finished,
            1 => End::Abandoned,
            2 => End::Unfinished,
            i => End::Refused(Refusal::ALL[i - 3]),
        })
    }

    prop_compose! {
        /// A row with anything in it.
        fn any_row()(
            ids in any::<(u32, u64, u32)>(),
            ranks in (0..3_u32, 0..2_u32, any::<Option<u32>>()),
            end in any_end(),
            times in any::<(u64, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u64>, u64, Option<u64>)>(),
            tokens in any::<(u32, u32, u32, u32)>(),
            marks in any::<(bool, Option<bool>, bool, bool)>(),
            extra in any::<(Option<u32>, Option<prop::sample::Index>)>(),
        ) -> Row {
            Row {
                request: ids.0, session: ids.1, turn: ids.2,
                tenant: ranks.0, class: ranks.1, replica: ranks.2,
                end,
                sent_ns: times.0, dispatched_ns: times.1, accepted_ns: times.2, started_ns: times.3,
                first_token_ns: times.4, generated_ns: times.5, ended_ns: times.6,
                last_token_ns: times.7,
                prompt_tokens: tokens.0, cached_tokens: tokens.1, output_tokens: tokens.2,
                preemptions: tokens.3,
                measured: marks.0, accepted_by_verifier: marks.1, good: marks.2, met_objectives: marks.3,
                attempts: extra.0,
                answer: extra.1.map(|i| *i.get(&AnswerSource::ALL)),
            }
        }
    }

    prop_compose! {
        /// A table in which every name occurs.
        pub(crate) fn any_requests()(
            mut rows in prop::collection::vec(any_row(), 0..40),
            seed in any::<u64>(),
            plain in any::<bool>(),
        ) -> Requests {
            if plain {
                // As of runs without clients that try again, whose files have fewer columns.
                rows.iter_mut().for_each(|row| (row.attempts, row.answer) = (None, None));
            }
            rows.extend((0..3).map(|rank| Row { tenant: rank, class: rank.min(1), ..BLANK }));
            Requests {
                rows,
                provenance: Provenance {
                    scenario_hash: "3f9a".into(),
                    seed,
                    class_names: vec!["interactive".into(), "a \"b\", c".into()],
                    tenant_names: vec!["x".into(), "y,z".into(), "ü\n".into()],
                },
            }
        }
    }
}
