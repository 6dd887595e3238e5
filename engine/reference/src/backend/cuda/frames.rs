//! Which memory a page has. A frame holds one page of 16-bit numbers or two of 8 bits. Pure
//! bookkeeping: the device is told where pages lie, and what to move.

use super::layout::Sizes;
use crate::kv::format::KvFormat;

/// Half of a frame, counted through: frame `n` has the halves `2 n` and `2 n + 1`.
pub(super) type Half = usize;

/// A page in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page {
    /// How its numbers are stored.
    pub(super) format: KvFormat,
    /// Where it begins.
    pub(super) half: Half,
}

/// Where a page goes when its format changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// Nothing to do.
    Stay,
    /// To memory that overlaps where it is: by way of memory elsewhere.
    InPlace(Page),
    /// To other memory.
    Away(Page),
}

/// Frames and pages.
#[derive(Debug)]
pub(super) struct Frames {
    pages: Vec<Option<Page>>,
    free_pages: Vec<u32>,
    free_frames: Vec<usize>,
    /// Halves whose other half is in use.
    free_halves: Vec<Half>,
    /// Frames that may hold what is no 16-bit number, and are cleared before they are filled.
    unclean: Vec<bool>,
    bytes: usize,
    sizes: Sizes,
}

impl Frames {
    /// As many frames as pages, so that memory never runs out before pages do.
    pub(super) fn new(sizes: Sizes, count: usize) -> Self {
        Self {
            pages: vec![None; count],
            free_pages: (0..count as u32).rev().collect(),
            free_frames: (0..count).rev().collect(),
            free_halves: Vec::new(),
            unclean: vec![true; count],
            bytes: 0,
            sizes,
        }
    }

    pub(super) fn page(&self, page: u32) -> Option<Page> {
        self.pages.get(page as usize).copied().flatten()
    }

    /// Bytes of numbers and scales in use.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything may hold what is no number.
    pub(super) fn distrust(&mut self) {
        self.unclean.fill(true);
    }

    /// Takes a page of 16-bit numbers; the flag says that its frame must be cleared.
    pub(super) fn take(&mut self) -> Option<(u32, Page, bool)> {
        let frame = *self.free_frames.last()?;
        let page = self.free_pages.pop()?;
        self.free_frames.pop();
        let place = Page {
            format: KvFormat::F16,
            half: 2 * frame,
        };
        self.pages[page as usize] = Some(place);
        self.bytes += self.sizes.page_bytes(KvFormat::F16);
        Some((page, place, std::mem::take(&mut self.unclean[frame])))
    }

    pub(super) fn give_back(&mut self, page: u32) {
        let Some(place) = self.pages.get_mut(page as usize).and_then(Option::take) else {
            return;
        };
        self.bytes -= self.sizes.page_bytes(place.format);
        self.free_pages.push(page);
        self.release(place);
    }

    fn release(&mut self, place: Page) {
        if !place.format.scaled() {
            self.free_frames.push(place.half / 2);
            return;
        }
        let other = place.half ^ 1;
        if let Some(at) = self.free_halves.iter().position(|&h| h == other) {
            self.free_halves.swap_remove(at);
            self.free_frames.push(place.half / 2);
        } else {
            self.free_halves.push(place.half);
        }
    }

    /// Finds a place for a page in another format, and books it. The content must be moved before
    /// anything else happens. None if the page is not in use.
    pub(super) fn convert(&mut self, page: u32, format: KvFormat) -> Option<Move> {
        let old = self.page(page)?;
        if old.format == format {
            return Some(Move::Stay);
        }
        let new = match (old.format.scaled(), format.scaled()) {
            (true, true) => Page { format, ..old },
            (false, true) => {
                // Beside another small page if there is one, so that whole frames come free.
                if let Some(half) = self.free_halves.pop() {
                    self.free_frames.push(old.half / 2);
                    Page { format, half }
                } else {
                    self.free_halves.push(old.half + 1);
                    Page { format, ..old }
                }
            }
            (_, false) => {
                let other = old.half ^ 1;
                if let Some(at) = self.free_halves.iter().position(|&h| h == other) {
                    self.free_halves.swap_remove(at);
                    let half = old.half & !1;
                    Page { format, half }
                } else {
                    let frame = self.free_frames.pop()?;
                    self.free_halves.push(old.half);
                    let half = 2 * frame;
                    Page { format, half }
                }
            }
        };
        self.pages[page as usize] = Some(new);
        self.bytes += self.sizes.page_bytes(format);
        self.bytes -= self.sizes.page_bytes(old.format);
        self.unclean[new.half / 2] = true;
        Some(if new.half / 2 == old.half / 2 {
            Move::InPlace(new)
        } else {
            Move::Away(new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use windtunnel_base::rng::Rng;

    /// Halves that a page occupies.
    fn halves(page: Page) -> Vec<Half> {
        if page.format.scaled() {
            vec![page.half]
        } else {
            assert_eq!(page.half % 2, 0, "16-bit pages begin with a frame");
            vec![page.half, page.half + 1]
        }
    }

    #[test]
    fn pages_never_share_memory_and_none_is_lost() {
        let sizes = Sizes::new(&ModelConfig::pocket_light());
        let mut frames = Frames::new(sizes, 12);
        let mut rng = Rng::from_seed(1);
        let mut taken: Vec<u32> = Vec::new();
        for _ in 0..20_000 {
            match rng.below(4) {
                0 if taken.len() < 12 => {
                    // As many frames as pages: taking succeeds whenever a page is left.
                    let (page, place, _) = frames.take().unwrap();
                    assert_eq!(place.format, KvFormat::F16);
                    taken.push(page);
                }
                1 if !taken.is_empty() => {
                    let page = taken.swap_remove(rng.below(taken.len() as u64) as usize);
                    frames.give_back(page);
                    assert_eq!(frames.page(page), None);
                }
                2 | 3 if !taken.is_empty() => {
                    let page = taken[rng.below(taken.len() as u64) as usize];
                    let format =
                        [KvFormat::F16, KvFormat::Fp8, KvFormat::Int8][rng.below(3) as usize];
                    assert!(frames.convert(page, format).is_some());
                    assert_eq!(frames.page(page).map(|p| p.format), Some(format));
                }
                _ => {}
            }
            let mut used = [false; 24];
            let mut bytes = 0;
            for &page in &taken {
                let place = frames.page(page).unwrap();
                bytes += sizes.page_bytes(place.format);
                for half in halves(place) {
                    assert!(
                        !std::mem::replace(&mut used[half], true),
                        "half {half} twice"
                    );
                }
            }
            assert_eq!(frames.bytes(), bytes);
            // What is not used is free, once.
            let free = 2 * frames.free_frames.len() + frames.free_halves.len();
            assert_eq!(free, used.iter().filter(|u| !**u).count());
        }
        for page in taken {
            frames.give_back(page);
        }
        assert_eq!((frames.free_frames.len(), frames.bytes()), (12, 0));
    }

    #[test]
    fn two_small_pages_share_a_frame() {
        let sizes = Sizes::new(&ModelConfig::pocket_light());
        let mut frames = Frames::new(sizes, 4);
        let (a, _, _) = frames.take().unwrap();
        let (b, _, _) = frames.take().unwrap();
        assert!(matches!(
            frames.convert(a, KvFormat::Fp8),
            Some(Move::InPlace(_))
        ));
        assert!(matches!(
            frames.convert(b, KvFormat::Int8),
            Some(Move::Away(_))
        ));
        assert_eq!(frames.free_frames.len(), 3);
        // A frame that held 8-bit numbers is cleared before it is filled again.
        frames.give_back(a);
        frames.give_back(b);
        let unclean = (0..4).filter(|_| frames.take().unwrap().2).count();
        assert_eq!(
            unclean, 3,
            "one frame was cleared and held 16-bit numbers only since"
        );
    }
}
