//! Shuffle sharding: which queues a flow may use. Two flows share all of their queues hardly ever, so that a flow that
//! fills its own leaves room to every other one.

/// The hash of a flow: of its schema's name and of what tells it from the schema's other flows (FNV-1a, then mixed, since
/// names differ in few bits).
pub(super) fn hash(schema: &str, flow: &str) -> u64 {
    let bytes = schema.bytes().chain([0xff]).chain(flow.bytes());
    let mixed =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 33
}

/// The most that is dealt: what validation lets a hand be is bounded by the hash's bits.
const MOST: usize = 64;

/// Deals `hand` different ones of `queues` by a hash.
pub(super) fn deal(mut hash: u64, queues: u64, hand: u64) -> impl Iterator<Item = u64> {
    let mut dealt: Vec<u64> = Vec::new();
    let hand = usize::try_from(hand.min(queues)).unwrap_or(MOST).min(MOST);
    for taken in 0..hand {
        let left = queues.saturating_sub(taken as u64).max(1);
        let mut card = hash % left;
        hash /= left;
        // The card's place among those that are left; `dealt` is sorted.
        let mut at = 0;
        while dealt.get(at).is_some_and(|earlier| *earlier <= card) {
            card += 1;
            at += 1;
        }
        dealt.insert(at, card);
    }
    dealt.into_iter()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_hand_has_different_queues_and_flows_have_different_hands() {
        let mut hands = HashSet::new();
        for user in 0..1000 {
            let hand: Vec<u64> = deal(hash("global-default", &format!("user-{user}")), 128, 6).collect();
            assert_eq!(hand.iter().collect::<HashSet<_>>().len(), 6, "{hand:?}");
            assert!(hand.iter().all(|queue| *queue < 128), "{hand:?}");
            hands.insert(hand);
        }
        assert!(hands.len() > 990, "{}", hands.len());
        assert_eq!(deal(hash("a", "b"), 2, 6).count(), 2);
        assert_eq!(deal(hash("a", "b"), 0, 6).count(), 0);
    }

    #[test]
    fn hands_use_all_queues_alike() {
        let mut counts = [0; 16];
        for user in 0..4000 {
            deal(hash("s", &user.to_string()), 16, 4).for_each(|queue| counts[usize::try_from(queue).unwrap()] += 1);
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
