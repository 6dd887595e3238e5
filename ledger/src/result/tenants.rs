//! Which tenants are told apart. Memory must not grow with their number, so only so many are: those
//! whose requests were the first to end. The requests of all others are counted together.

/// Most tenants that are told apart.
pub const MAX_TENANTS: usize = 32;

/// Nobody's place yet.
const NONE: u8 = u8::MAX;

/// The tenants that are told apart, and where each is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// By tenant.
    places: Vec<u8>,
    /// By place.
    tenants: Vec<u32>,
}

impl Places {
    /// Where the requests of a tenant are counted; [`MAX_TENANTS`] stands for all others.
    pub(super) fn of(&mut self, tenant: u32) -> usize {
        let i = tenant as usize;
        if i >= self.places.len() {
            self.places.resize(i + 1, NONE);
        }
        if self.places[i] == NONE {
            let place = self.tenants.len().min(MAX_TENANTS);
            if place < MAX_TENANTS {
                self.tenants.push(tenant);
            }
            self.places[i] = place as u8;
        }
        usize::from(self.places[i])
    }

    /// The tenants by place.
    pub(super) fn finish(self) -> Vec<u32> {
        self.tenants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_have_places_and_the_others_one_together() {
        let mut places = Places::default();
        let met = [7, 3, 7, 500, 3];
        assert_eq!(met.map(|tenant| places.of(tenant)), [0, 1, 0, 2, 1]);
        let later: Vec<usize> = (1000..1040).map(|tenant| places.of(tenant)).collect();
        assert_eq!(later[..29], Vec::from_iter(3..32));
        assert!(later[29..].iter().all(|&place| place == MAX_TENANTS));
        assert_eq!((places.of(1003), places.of(1035)), (6, MAX_TENANTS));
        let tenants = places.finish();
        assert_eq!(
            (tenants.len(), &tenants[..3]),
            (MAX_TENANTS, &[7, 3, 500][..])
        );
    }
}
