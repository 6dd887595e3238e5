//! Pages of keys and values in memory of the host. A page holds the same `page_tokens` tokens of all
//! layers. It is filled in one format, and when it is full it may be stored again in a smaller one.

use super::e4m3;
use super::format::KvFormat;
use crate::config::ModelConfig;

/// Keys or values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Keys, with their rotary positions applied.
    Key,
    /// Values.
    Value,
}

#[derive(Clone, Debug)]
struct Page {
    format: KvFormat,
    /// Layer, side, head, token, number.
    data: Vec<u8>,
    /// Layer, side, head; empty for formats without.
    scales: Vec<f32>,
}

/// All pages of one device.
#[derive(Debug)]
pub struct Pages {
    layers: usize,
    heads: usize,
    dim: usize,
    page_tokens: usize,
    filling: KvFormat,
    pages: Vec<Option<Page>>,
    free: Vec<u32>,
    table: [f32; 256],
}

impl Pages {
    /// No pages in use of `count`, each of `page_tokens` tokens; `filling` is the format of pages
    /// that are not full.
    pub fn new(config: &ModelConfig, count: usize, page_tokens: usize, filling: KvFormat) -> Self {
        Self {
            layers: config.num_hidden_layers,
            heads: config.num_key_value_heads,
            dim: config.head_dim,
            page_tokens,
            filling,
            pages: vec![None; count],
            free: (0..count as u32).rev().collect(),
            table: e4m3::table(),
        }
    }

    /// Tokens of a page.
    pub const fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// The format of pages that are not full.
    pub const fn filling(&self) -> KvFormat {
        self.filling
    }

    /// Bytes that attention of one layer reads of a page's first `tokens` tokens: keys and values
    /// of all heads, and their scales.
    pub fn read_bytes(&self, page: u32, tokens: usize) -> u64 {
        let Some(format) = self.format(page) else {
            return 0;
        };
        let stripes = if tokens == 0 { 0 } else { 2 * self.heads };
        let scale = if format.scaled() { size_of::<f32>() } else { 0 };
        (stripes * (tokens * self.dim * format.bytes() + scale)) as u64
    }

    /// Pages that nobody has.
    pub const fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a page, or says that there is none.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        let numbers = self.layers * 2 * self.heads * self.page_tokens * self.dim;
        self.pages[page as usize] = Some(Page {
            format: self.filling,
            data: vec![0; numbers * self.filling.bytes()],
            scales: self.scales_of(self.filling),
        });
        Some(page)
    }

    /// Gives a page back.
    pub fn give_back(&mut self, page: u32) {
        if self.pages[page as usize].take().is_some() {
            self.free.push(page);
        }
    }

    /// Bytes of numbers and scales of a page; 0 if it is not in use.
    pub fn page_bytes(&self, page: u32) -> u64 {
        let page = self.pages[page as usize].as_ref();
        page.map_or(0, |p| (p.data.len() + 4 * p.scales.len()) as u64)
    }

    /// Bytes of numbers and scales of the pages in use.
    pub fn bytes(&self) -> usize {
        self.pages
            .iter()
            .flatten()
            .map(|p| p.data.len() + 4 * p.scales.len())
            .sum()
    }

    /// The format of a page in use.
    pub fn format(&self, page: u32) -> Option<KvFormat> {
        self.pages[page as usize].as_ref().map(|p| p.format)
    }

    fn scales_of(&self, format: KvFormat) -> Vec<f32> {
        if format.scaled() {
            vec![1.0; self.layers * 2 * self.heads]
        } else {
            Vec::new()
        }
    }

    /// Which head of which layer and side, counted through.
    const fn stripe(&self, layer: usize, side: Side, head: usize) -> usize {
        (layer * 2 + side as usize) * self.heads + head
    }

    /// Writes one token's numbers of one head. The page must be one that is being filled.
    pub fn write(
        &mut self,
        page: u32,
        layer: usize,
        side: Side,
        head: usize,
        token: usize,
        numbers: &[f32],
    ) {
        let at = (self.stripe(layer, side, head) * self.page_tokens + token) * self.dim;
        let Some(page) = &mut self.pages[page as usize] else {
            return;
        };
        let width = page.format.bytes();
        debug_assert!(!page.format.scaled(), "full pages are not written to");
        let room = &mut page.data[at * width..(at + numbers.len()) * width];
        page.format.store(numbers, 1.0, room);
    }

    /// Reads the first `tokens` tokens of one head into `out`, token by token.
    pub fn read(
        &self,
        page: u32,
        layer: usize,
        side: Side,
        head: usize,
        tokens: usize,
        out: &mut [f32],
    ) {
        let stripe = self.stripe(layer, side, head);
        let at = stripe * self.page_tokens * self.dim;
        let Some(page) = &self.pages[page as usize] else {
            return;
        };
        let width = page.format.bytes();
        let scale = page.scales.get(stripe).copied().unwrap_or(1.0);
        let bytes = &page.data[at * width..(at + tokens * self.dim) * width];
        page.format
            .load(bytes, scale, &self.table, &mut out[..tokens * self.dim]);
    }

    /// Stores a full page again in another format.
    pub fn convert(&mut self, page: u32, format: KvFormat) {
        let mut scales = self.scales_of(format);
        let stripe_numbers = self.page_tokens * self.dim;
        let stripes = self.layers * 2 * self.heads;
        let table = self.table;
        let Some(page) = &mut self.pages[page as usize] else {
            return;
        };
        if page.format == format {
            return;
        }
        let mut data = vec![0; stripes * stripe_numbers * format.bytes()];
        let mut numbers = vec![0_f32; stripe_numbers];
        for stripe in 0..stripes {
            let at = stripe * stripe_numbers;
            let old = page.scales.get(stripe).copied().unwrap_or(1.0);
            let width = page.format.bytes();
            page.format.load(
                &page.data[at * width..(at + stripe_numbers) * width],
                old,
                &table,
                &mut numbers,
            );
            let largest = numbers.iter().fold(0_f32, |m, x| m.max(x.abs()));
            let scale = format.scale(largest);
            if let Some(place) = scales.get_mut(stripe) {
                *place = scale;
            }
            let width = format.bytes();
            format.store(
                &numbers,
                scale,
                &mut data[at * width..(at + stripe_numbers) * width],
            );
        }
        *page = Page {
            format,
            data,
            scales,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_conversion_keeps_it_within_the_format() {
        let config = ModelConfig::pocket_light();
        let mut pages = Pages::new(&config, 2, 16, KvFormat::F16);
        let page = pages.take().unwrap();
        let mut rng = windtunnel_base::rng::Rng::from_seed(3);
        let (heads, dim) = (config.num_key_value_heads, config.head_dim);
        let mut want = vec![0_f32; 16 * dim];
        for layer in 0..config.num_hidden_layers {
            for head in 0..heads {
                for side in [Side::Key, Side::Value] {
                    for token in 0..16 {
                        let numbers: Vec<f32> = (0..dim)
                            .map(|_| (rng.f64() - 0.5) as f32 * (layer + 1) as f32)
                            .collect();
                        pages.write(page, layer, side, head, token, &numbers);
                        if (layer, head, side) == (1, 1, Side::Value) {
                            want[token * dim..(token + 1) * dim].copy_from_slice(&numbers);
                        }
                    }
                }
            }
        }
        let half = pages.bytes();
        let largest = want.iter().fold(0_f32, |m, x| m.max(x.abs()));
        let mut got = vec![0_f32; 16 * dim];
        // Half a step of the format, after half a step of the 16-bit floats it is made from.
        let half_float = largest / 2048.0;
        for (format, error) in [
            (KvFormat::F16, half_float),
            (KvFormat::Int8, largest / 254.0 + half_float),
            (KvFormat::Fp8, largest / 16.0 + half_float),
        ] {
            let copy = pages.pages[page as usize].clone();
            pages.convert(page, format);
            assert_eq!(pages.format(page), Some(format));
            pages.read(page, 1, Side::Value, 1, 16, &mut got);
            let worst = want
                .iter()
                .zip(&got)
                .fold(0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= error, "{format:?}: {worst} over {error}");
            assert!(format == KvFormat::F16 || pages.bytes() < half * 6 / 10);
            pages.pages[page as usize] = copy;
        }
        pages.give_back(page);
        assert_eq!((pages.free(), pages.bytes()), (2, 0));
    }
}
