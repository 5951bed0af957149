//! How the server's seats are divided among its priority levels. Pure.
//!
//! A level owns its nominal seats and lends what it does not need down to a minimum; a level that wants more borrows what
//! others lend, up to a maximum. What must stay true: a level gets its nominal seats when it wants them, whoever borrowed
//! them; seats are never invented, but for rounding.

/// What a level owns, keeps, may have at most, and would need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) nominal: u32,
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Bounds {
    /// Of a level with so many of all shares, in a server of `total` seats, by its percentages.
    pub(super) fn new(total: u32, shares: u32, all: u64, lendable: u32, borrowing: Option<u32>) -> Self {
        let nominal = (u64::from(total) * u64::from(shares)).div_ceil(all.max(1));
        let percent = |percent: u32| (nominal * u64::from(percent) + 50) / 100;
        let seats = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            nominal: seats(nominal),
            min: seats(nominal.saturating_sub(percent(lendable))),
            max: borrowing.map_or(total.max(seats(nominal)), |limit| seats(nominal + percent(limit))),
        }
    }
}

/// Seats for each level, given what each would need.
pub(super) fn divide(levels: &[(Bounds, u32)]) -> Vec<u32> {
    let owned: u64 = levels.iter().map(|(bounds, _)| u64::from(bounds.nominal)).sum();
    let mut seats: Vec<u32> =
        levels.iter().map(|(bounds, demand)| (*demand).clamp(bounds.min, bounds.nominal.max(bounds.min))).collect();
    let taken: u64 = seats.iter().map(|seats| u64::from(*seats)).sum();
    let mut spare = owned.saturating_sub(taken);
    // First to whoever wants more, as they own; what nobody wants goes back to its owners.
    spare = give(levels, &mut seats, spare, |(bounds, demand)| (*demand).min(bounds.max));
    give(levels, &mut seats, spare, |(bounds, _)| bounds.nominal);
    seats
}

/// Gives spare seats to levels that have less than they should, in proportion to what they own. Returns what is left.
fn give(levels: &[(Bounds, u32)], seats: &mut [u32], mut spare: u64, goal: impl Fn(&(Bounds, u32)) -> u32) -> u64 {
    while spare > 0 {
        let wants = |(level, seats): (&(Bounds, u32), &u32)| u64::from(goal(level).saturating_sub(*seats));
        let weight = |level: &(Bounds, u32)| u64::from(level.0.nominal.max(1));
        let hungry: u64 =
            levels.iter().zip(seats.iter()).filter(|pair| wants(*pair) > 0).map(|(level, _)| weight(level)).sum();
        if hungry == 0 {
            break;
        }
        let round = spare;
        for (level, seats) in levels.iter().zip(seats.iter_mut()) {
            let share = (round * weight(level)).div_ceil(hungry);
            let given = wants((level, &*seats)).min(share).min(spare);
            *seats = seats.saturating_add(u32::try_from(given).unwrap_or(u32::MAX));
            spare -= given;
        }
    }
    spare
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(nominal: u32, min: u32, max: u32) -> Bounds {
        Bounds { nominal, min, max }
    }

    #[test]
    fn bounds_follow_shares_and_percentages() {
        assert_eq!(Bounds::new(600, 30, 245, 33, None), bounds(74, 50, 600));
        assert_eq!(Bounds::new(600, 5, 245, 0, Some(0)), bounds(13, 13, 13));
        assert_eq!(Bounds::new(600, 100, 245, 90, Some(50)), bounds(245, 24, 368));
        assert_eq!(Bounds::new(600, 0, 245, 0, None), bounds(0, 0, 600));
    }

    #[test]
    fn idle_seats_are_lent_and_come_back() {
        let (a, b) = (bounds(10, 2, 30), bounds(20, 5, 30));
        for (demands, wanted) in [
            // Nobody wants anything: everybody has what they own.
            ([0, 0], [10, 20]),
            ([40, 0], [25, 5]),
            ([40, 12], [18, 12]),
            ([40, 40], [10, 20]),
            ([3, 100], [3, 27]),
            ([0, 100], [2, 28]),
        ] {
            assert_eq!(divide(&[(a, demands[0]), (b, demands[1])]), wanted, "{demands:?}");
        }
        // Who may not borrow does not.
        assert_eq!(divide(&[(bounds(10, 10, 12), 40), (b, 0)]), [12, 18]);
        // A level without seats of its own lives of what others lend.
        assert_eq!(divide(&[(bounds(0, 0, 30), 4), (b, 0)]), [4, 16]);
    }

    proptest! {
        #[test]
        fn seats_are_neither_invented_nor_withheld(
            levels in proptest::collection::vec((0_u32..200, 0_u32..=100, proptest::option::of(0_u32..300), 0_u32..500), 1..8)
        ) {
            let levels: Vec<(Bounds, u32)> = levels
                .into_iter()
                .map(|(nominal, lendable, borrowing, demand)| {
                    (Bounds::new(nominal, 1, 1, lendable, borrowing), demand)
                })
                .collect();
            let seats = divide(&levels);
            let owned: u32 = levels.iter().map(|(bounds, _)| bounds.nominal).sum();
            prop_assert!(seats.iter().sum::<u32>() <= owned);
            for ((bounds, demand), seats) in levels.iter().zip(&seats) {
                prop_assert!(*seats >= bounds.min.min(bounds.nominal));
                prop_assert!(*seats >= (*demand).min(bounds.nominal), "{bounds:?} wants {demand}, has {seats}");
                prop_assert!(*seats <= bounds.max.max(bounds.nominal));
            }
        }
    }
}
