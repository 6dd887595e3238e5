//! What a step is for the device: rows in their order, tables that the kernels read, and how many rows,
//! decodes and tiles every layer has. Pure bookkeeping on the host.

use super::layout::{DRAW, PAGE, SPAN, TILE, TILE_ROWS};
use crate::backend::{Sampling, Span};
use crate::sampling::uniform;

/// What is active in a layer. Those that leave early come last, so that a layer takes a beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Active {
    /// Rows.
    pub(super) rows: usize,
    /// Spans of one row.
    pub(super) decodes: usize,
    /// Tiles of the others.
    pub(super) tiles: usize,
}

/// Where each table begins in the packed parameters, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tables {
    pub(super) tokens: usize,
    pub(super) spans_of_rows: usize,
    pub(super) spans: usize,
    pub(super) decodes: usize,
    pub(super) tiles: usize,
    pub(super) last_rows: usize,
    pub(super) draws: usize,
    pub(super) pages: usize,
}

/// Sizes of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Shape {
    pub(super) rows: usize,
    /// Spans that asked for a token.
    pub(super) asked: usize,
    /// By layer.
    pub(super) active: Vec<Active>,
    /// Pages of the longest decode.
    pub(super) decode_pages: usize,
    pub(super) tables: Tables,
}

/// A step.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    /// All tables, packed.
    pub(super) bytes: Vec<u8>,
    /// Spans that asked, in the order of their logits.
    pub(super) asked: Vec<usize>,
    /// One token per span, all layers: what a graph can do again.
    pub(super) uniform: bool,
    order: Vec<usize>,
}

fn put(bytes: &mut Vec<u8>, words: impl IntoIterator<Item = u32>) {
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}

/// Begins a table: at a multiple of 16.
fn begin(bytes: &mut Vec<u8>) -> usize {
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes.len()
}

impl Plan {
    /// Plans a step. `scratch` is a page that nobody reads. If all spans are of one token through all
    /// layers, `bucket` may give a number of rows to fill up to, with rows that use that page.
    pub(super) fn build(
        &mut self,
        spans: &[Span<'_>],
        layers: usize,
        group: usize,
        scratch: u32,
        bucket: impl FnOnce(usize) -> Option<usize>,
    ) {
        let stop = |s: usize| spans[s].layers.unwrap_or(layers).min(layers);
        let order = &mut self.order;
        order.clear();
        order.extend((0..spans.len()).filter(|&s| !spans[s].tokens.is_empty()));
        order.sort_by_key(|&s| std::cmp::Reverse(stop(s)));
        let alike = |&s: &usize| spans[s].tokens.len() == 1 && stop(s) == layers;
        let padded = if !order.is_empty() && order.iter().all(alike) {
            bucket(order.len())
        } else {
            None
        };
        self.uniform = padded.is_some();
        let fill = padded.map_or(0, |b| b.saturating_sub(order.len()));
        self.bytes.clear();
        self.activity(spans, layers, group, fill, stop);
        self.write_rows(spans, fill);
        self.write_spans(spans, fill);
        self.write_tiles(spans, group);
        self.write_asked(spans, fill);
        // Last, as its length changes from step to step and nothing else may move in a graph.
        let bytes = &mut self.bytes;
        self.shape.tables.pages = begin(bytes);
        put(bytes, [scratch]);
        for &s in &self.order {
            let used = used_pages(&spans[s]);
            put(bytes, spans[s].pages.iter().take(used).copied());
        }
    }

    /// How much of everything each layer has.
    fn activity(
        &mut self,
        spans: &[Span<'_>],
        layers: usize,
        group: usize,
        fill: usize,
        stop: impl Fn(usize) -> usize,
    ) {
        let shape = &mut self.shape;
        shape.active.clear();
        shape.rows = fill;
        shape.decode_pages = usize::from(fill > 0);
        for &s in &self.order {
            shape.rows += spans[s].tokens.len();
            if spans[s].tokens.len() == 1 {
                shape.decode_pages = shape.decode_pages.max(used_pages(&spans[s]));
            }
        }
        for layer in 0..layers {
            let mut active = Active {
                rows: fill,
                decodes: fill,
                tiles: 0,
            };
            for &s in self.order.iter().take_while(|&&s| stop(s) > layer) {
                let tokens = spans[s].tokens.len();
                active.rows += tokens;
                if tokens == 1 {
                    active.decodes += 1;
                } else {
                    active.tiles += (tokens * group).div_ceil(TILE_ROWS);
                }
            }
            shape.active.push(active);
        }
    }

    /// Tokens, and which span each row is of.
    fn write_rows(&mut self, spans: &[Span<'_>], fill: usize) {
        let (bytes, order) = (&mut self.bytes, &self.order);
        self.shape.tables.tokens = begin(bytes);
        for &s in order {
            put(bytes, spans[s].tokens.iter().copied());
        }
        put(bytes, std::iter::repeat_n(0, fill));
        self.shape.tables.spans_of_rows = begin(bytes);
        for (i, &s) in order.iter().enumerate() {
            put(bytes, std::iter::repeat_n(i as u32, spans[s].tokens.len()));
        }
        put(bytes, (0..fill).map(|i| (order.len() + i) as u32));
    }

    /// The spans, and those of one token again in a table of their own.
    fn write_spans(&mut self, spans: &[Span<'_>], fill: usize) {
        let (bytes, order) = (&mut self.bytes, &self.order);
        for decodes_only in [false, true] {
            let at = begin(bytes);
            let tables = &mut self.shape.tables;
            *(if decodes_only {
                &mut tables.decodes
            } else {
                &mut tables.spans
            }) = at;
            // The list of pages begins with the scratch page.
            let (mut row, mut page) = (0_u32, 1_u32);
            for &s in order {
                let span = &spans[s];
                let tokens = span.tokens.len() as u32;
                if !decodes_only || tokens == 1 {
                    put(bytes, [row, tokens, span.start as u32, page]);
                }
                row += tokens;
                page += used_pages(span) as u32;
            }
            for i in 0..fill as u32 {
                put(bytes, [row + i, 1, 0, 0]);
            }
        }
    }

    /// Which span and which of its rows (token times query heads of a group) a tile begins with.
    fn write_tiles(&mut self, spans: &[Span<'_>], group: usize) {
        self.shape.tables.tiles = begin(&mut self.bytes);
        for (i, &s) in self.order.iter().enumerate() {
            let rows = spans[s].tokens.len() * group;
            if spans[s].tokens.len() > 1 {
                for tile in 0..rows.div_ceil(TILE_ROWS) {
                    put(&mut self.bytes, [i as u32, (tile * TILE_ROWS) as u32]);
                }
            }
        }
    }

    /// Whose last row is sampled from, and how. A graph samples every row, in the order of the rows; else
    /// it is those that ask, in the order of the spans.
    fn write_asked(&mut self, spans: &[Span<'_>], fill: usize) {
        let mut lasts = vec![0_u32; spans.len()];
        let mut row = 0;
        for &s in &self.order {
            row += spans[s].tokens.len() as u32;
            lasts[s] = row - 1;
        }
        self.asked.clear();
        self.asked.extend_from_slice(&self.order);
        if !self.uniform {
            self.asked.retain(|&s| spans[s].sample.is_some());
            self.asked.sort_unstable();
        }
        self.shape.asked = self.asked.len() + fill;
        let bytes = &mut self.bytes;
        self.shape.tables.last_rows = begin(bytes);
        put(bytes, self.asked.iter().map(|&s| lasts[s]));
        put(bytes, row..row + fill as u32);
        self.shape.tables.draws = begin(bytes);
        for &s in &self.asked {
            let sampling = spans[s].sample.unwrap_or(Sampling::GREEDY);
            let position = spans[s].start + spans[s].tokens.len() - 1;
            bytes.extend_from_slice(&sampling.temperature.to_le_bytes());
            bytes.extend_from_slice(&sampling.top_p.to_le_bytes());
            bytes.extend_from_slice(&uniform(&sampling, position).to_le_bytes());
        }
        bytes.extend(std::iter::repeat_n(0, fill * DRAW));
    }
}

/// Pages that hold a span's tokens and all before them.
pub(super) fn used_pages(span: &Span<'_>) -> usize {
    (span.start + span.tokens.len()).div_ceil(PAGE)
}

/// Bytes that the parameters of a step need at most.
pub(super) const fn most_bytes(rows: usize, pages: usize) -> usize {
    // A token, its span's number, two descriptions of the span, a draw, a last row, tiles (at most
    // 16 rows of 64 to a token); the list of pages; and what tables are aligned by.
    rows * (4 + 4 + 2 * SPAN + DRAW + 4 + TILE) + 4 * (pages + 1) + 8 * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn words(bytes: &[u8], at: usize, count: usize) -> Vec<u32> {
        (0..count).map(|i| word(bytes, at + 4 * i)).collect()
    }

    #[test]
    fn rows_that_leave_early_come_last_and_tables_agree() {
        let (a, b, c) = ([7_u32], [1_u32, 2, 3], [9_u32]);
        let pages_of = [vec![4_u32, 5], vec![6], vec![8, 3, 2]];
        let sample = Some(Sampling::GREEDY);
        let span = |tokens, start, pages, layers, sample| Span {
            tokens,
            start,
            pages,
            sample,
            layers,
        };
        let spans = [
            span(&a[..], 16, &pages_of[0][..], Some(1), sample),
            span(&b[..], 2, &pages_of[1][..], None, None),
            span(&c[..], 40, &pages_of[2][..], None, sample),
        ];
        let mut plan = Plan::default();
        plan.build(&spans, 3, 2, 99, |_| Some(8));
        assert!(!plan.uniform, "not all spans are alike");
        let (shape, bytes) = (&plan.shape, &plan.bytes);
        let tables = shape.tables;
        assert_eq!(words(bytes, tables.tokens, 5), [1, 2, 3, 9, 7]);
        assert_eq!(words(bytes, tables.spans_of_rows, 5), [0, 0, 0, 1, 2]);
        // Row, tokens, start, where its pages are.
        let all = [[0, 3, 2, 1], [3, 1, 40, 2], [4, 1, 16, 5]].concat();
        assert_eq!(words(bytes, tables.spans, 12), all);
        assert_eq!(words(bytes, tables.decodes, 8), all[4..]);
        assert_eq!(words(bytes, tables.tiles, 2), [0, 0]);
        assert_eq!(words(bytes, tables.pages, 7), [99, 6, 8, 3, 2, 4, 5]);
        assert_eq!(plan.asked, [0, 2]);
        assert_eq!(words(bytes, tables.last_rows, 2), [4, 3]);
        let active = |rows, decodes| Active {
            rows,
            decodes,
            tiles: 1,
        };
        assert_eq!(shape.active, [active(5, 2), active(4, 1), active(4, 1)]);
        assert_eq!((shape.rows, shape.asked, shape.decode_pages), (5, 2, 3));
        assert!(bytes.len() <= most_bytes(5, 6));
    }

    #[test]
    fn steps_of_one_bucket_have_their_tables_in_the_same_places() {
        let token = [3_u32];
        let pages: Vec<u32> = (0..40).collect();
        let mut places = Vec::new();
        for (count, start) in [(5, 3), (8, 400), (6, 100)] {
            let spans: Vec<Span<'_>> = (0..count)
                .map(|i| Span {
                    tokens: &token,
                    start: start + i,
                    pages: &pages,
                    sample: Some(Sampling::GREEDY),
                    layers: None,
                })
                .collect();
            let mut plan = Plan::default();
            plan.build(&spans, 2, 2, 99, |rows| Some(rows.next_power_of_two()));
            assert!(plan.uniform);
            assert_eq!((plan.shape.rows, plan.shape.asked), (8, 8));
            let last = words(&plan.bytes, plan.shape.tables.last_rows, 8);
            assert_eq!(last, (0..8).collect::<Vec<u32>>());
            // Rows that fill up read and write the scratch page.
            let filling = words(&plan.bytes, plan.shape.tables.spans + 7 * SPAN, 4);
            assert!(count == 8 || filling == [7, 1, 0, 0], "{filling:?}");
            places.push(plan.shape.tables);
        }
        assert!(places.windows(2).all(|p| p[0] == p[1]));
    }
}
