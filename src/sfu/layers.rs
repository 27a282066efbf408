//! The layers of a track, and their allocation to the subscriptions of one receiver.
//!
//! A layer is identified by its index in the session description. Layers are ranked by name: in the Calls API the
//! alphabetically first is the best.

use std::time::{Duration, Instant};

use super::request::{Choice, LayerWish};

/// Time without packets after which a layer is dead, if other layers of its track go on.
const QUIET: Duration = Duration::from_millis(400);

/// Least number of occasions, at least [`APART`] from each other, at which other layers sent while a dead one did not.
/// A shared screen may have one frame a second: while the packets of a frame arrive, the layer that is sent last must
/// not look dead.
const OCCASIONS: u32 = 4;
const APART: Duration = Duration::from_millis(100);

/// Time after its last packet for which a track counts as active.
const ACTIVE: Duration = Duration::from_secs(30);

/// Length, in milliseconds, and number of the slots in which bytes are counted.
const SLOT_MS: u64 = 250;
const SLOTS: usize = 16;

/// Number of slots before the current one that cover the last second.
const SECOND: u64 = 4;

/// Number of slots before the current one for the steady rate, in which a keyframe weighs little.
const STEADY: u64 = SLOTS as u64 - 1;

/// Spare bandwidth, in percent, that an upgrade needs: without it the next small change would revert the upgrade, and
/// each change costs a keyframe.
const HEADROOM_PERCENT: u64 = 15;

/// The layers of a track.
#[derive(Clone, Debug)]
pub struct Layers {
    layers: Vec<Layer>,
    /// Indices of the layers, best first.
    order: Vec<usize>,
    /// Arrival of the last packet of any layer.
    newest: Option<Instant>,
}

/// A layer of a track.
#[derive(Clone, Debug)]
struct Layer {
    rid: Option<String>,
    last: Option<Instant>,
    /// Activity of other layers since its last packet.
    lacking: Option<LayerSilence>,
    meter: Meter,
}

/// Activity of a track's other layers while one sends nothing.
#[derive(Clone, Copy, Debug)]
struct LayerSilence {
    since: Instant,
    counted: Instant,
    occasions: u32,
}

impl Layers {
    /// Creates layers with these names, in the order of the session description; a single one without a name is a track
    /// without simulcast.
    pub fn new(rids: Vec<Option<String>>) -> Self {
        let layers: Vec<Layer> = rids
            .into_iter()
            .map(|rid| Layer { rid, last: None, lacking: None, meter: Meter::default() })
            .collect();
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_by(|a, b| layers[*a].rid.cmp(&layers[*b].rid));
        Self { layers, order, newest: None }
    }

    /// Index of the layer with a name, or of the one without.
    pub fn index_of(&self, rid: Option<&str>) -> Option<usize> {
        self.layers.iter().position(|layer| layer.rid.as_deref() == rid)
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Name of a layer, if it has one.
    pub fn rid(&self, index: usize) -> Option<&str> {
        self.layers.get(index)?.rid.as_deref()
    }

    /// Indices of the layers, best first.
    pub fn best_first(&self) -> impl Iterator<Item = usize> {
        self.order.iter().copied()
    }

    /// Records a packet of a layer.
    pub fn saw(&mut self, index: usize, now: Instant, bytes: usize) {
        if index >= self.layers.len() {
            return;
        }
        self.newest = Some(now);
        for (other, layer) in self.layers.iter_mut().enumerate() {
            if other == index {
                layer.last = Some(now);
                layer.lacking = None;
                layer.meter.add(now, bytes);
            } else {
                layer.lack(now);
            }
        }
    }

    /// True if a layer is being sent.
    ///
    /// A layer that pauses together with all others stays live: the source has nothing to send.
    pub fn is_live(&self, index: usize, now: Instant) -> bool {
        let Some(layer) = self.layers.get(index) else { return false };
        let (Some(_), Some(newest)) = (layer.last, self.newest) else { return false };
        let lacks = layer.lacking.is_some_and(|lacking| {
            lacking.occasions >= OCCASIONS && newest.saturating_duration_since(lacking.since) >= QUIET
        });
        !lacks && self.is_active(now)
    }

    /// Bits a second of a layer over about the last second.
    pub fn bits(&self, index: usize, now: Instant) -> u64 {
        self.layers.get(index).map_or(0, |layer| layer.meter.rate(now, SECOND))
    }

    /// Bits a second of a layer over about the last four seconds, used for allocation.
    pub fn steady_bits(&self, index: usize, now: Instant) -> u64 {
        self.layers.get(index).map_or(0, |layer| layer.meter.rate(now, STEADY))
    }

    /// True if a packet of any layer arrived in the last 30 s.
    pub fn is_active(&self, now: Instant) -> bool {
        self.newest.is_some_and(|newest| now.saturating_duration_since(newest) < ACTIVE)
    }

    /// True if any packet ever arrived.
    pub fn ever(&self) -> bool {
        self.newest.is_some()
    }

    /// True if the track has no simulcast.
    fn is_single(&self) -> bool {
        matches!(self.layers.as_slice(), [Layer { rid: None, .. }])
    }

    /// Number of layers that are better than this one.
    fn rank(&self, index: usize) -> usize {
        self.best_first().position(|other| other == index).unwrap_or(usize::MAX)
    }
}

impl Layer {
    /// Records that another layer was sent while this one was not.
    fn lack(&mut self, now: Instant) {
        match &mut self.lacking {
            None => self.lacking = Some(LayerSilence { since: now, counted: now, occasions: 1 }),
            Some(lacking) if now.saturating_duration_since(lacking.counted) >= APART => {
                lacking.counted = now;
                lacking.occasions = lacking.occasions.saturating_add(1);
            }
            Some(_) => {}
        }
    }
}

/// Byte counts of a layer's recent packets.
#[derive(Clone, Debug, Default)]
struct Meter {
    /// Start of counting; it restarts after a pause.
    began: Option<Instant>,
    /// Slot of the last packet, counted from `began`.
    slot: u64,
    /// Ring of byte counts; a slot's index is its number modulo the length.
    bytes: [u64; SLOTS],
}

impl Meter {
    fn add(&mut self, now: Instant, bytes: usize) {
        let slot = match self.began {
            Some(began) if slot_of(began, now) < self.slot + SLOTS as u64 => {
                // If time ever goes back, bytes are counted in the current slot.
                slot_of(began, now).max(self.slot)
            }
            _ => {
                *self = Self { began: Some(now), ..Self::default() };
                0
            }
        };
        for skipped in self.slot + 1..=slot {
            self.bytes[place(skipped)] = 0;
        }
        self.slot = slot;
        self.bytes[place(slot)] += bytes as u64;
    }

    /// Bits a second over the current slot and `slots` before it, but not from before counting began.
    fn rate(&self, now: Instant, slots: u64) -> u64 {
        let Some(began) = self.began else { return 0 };
        let current = slot_of(began, now).max(self.slot);
        let first = current.saturating_sub(slots);
        // Older slots than the ring holds were overwritten, and later ones than `self.slot` are empty.
        let bytes: u64 = (first..=self.slot).map(|slot| self.bytes[place(slot)]).sum();
        let elapsed = now.saturating_duration_since(began).as_millis() as u64;
        let counted = elapsed.saturating_sub(first * SLOT_MS).max(SLOT_MS);
        bytes * 8 * 1000 / counted
    }
}

fn slot_of(began: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(began).as_millis() as u64 / SLOT_MS
}

fn place(slot: u64) -> usize {
    slot as usize % SLOTS
}

/// Layer demand of one subscription to a video track.
#[derive(Clone, Copy, Debug)]
pub struct LayerDemand<'a> {
    /// The layers of the track.
    pub layers: &'a Layers,
    /// The subscriber's wish.
    pub wish: &'a LayerWish,
    /// The layer forwarded at present.
    pub current: Option<usize>,
    /// True if it was paused a moment ago and must not be resumed yet.
    pub rests: bool,
}

/// Bandwidth to be allocated to the subscriptions of one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Estimated bandwidth of the receiver, in bits a second; `None` if unknown.
    pub estimate: Option<u64>,
    /// Bits a second already in use: audio, which is always sent.
    pub held: u64,
    /// True if current layers that do not fit may be lowered or paused.
    pub may_lower: bool,
}

impl LayerDemand<'_> {
    /// Layers that this subscription may get now, best first; none means it gets nothing.
    fn allowed(&self, now: Instant) -> Vec<usize> {
        let layers = self.layers;
        if layers.is_single() {
            return vec![0];
        }
        let preferred = self.wish.preferred.as_deref().filter(|rid| !rid.is_empty());
        let (better, fine): (Vec<usize>, Vec<usize>) = layers
            .best_first()
            .partition(|index| preferred.is_some_and(|rid| layers.rid(*index) < Some(rid)));
        let may_choose = self.wish.by_bandwidth == Choice::Free;

        let is_live = |index: &usize| layers.is_live(*index, now);
        let any_live = layers.best_first().any(|index| is_live(&index));
        let is_missing = |rid| layers.index_of(Some(rid)).is_none_or(|index| any_live && !is_live(&index));
        if self.wish.when_missing == Choice::Fixed && preferred.is_some_and(is_missing) {
            return Vec::new();
        }
        let mut allowed: Vec<usize> = if any_live {
            fine.into_iter().filter(is_live).collect()
        } else {
            // Nothing shows which layer will come next. The current layer is kept, so that it resumes without a switch.
            let kept = self.current.filter(|current| may_choose && fine.contains(current));
            kept.or(fine.first().copied()).into_iter().collect()
        };
        if allowed.is_empty() {
            // The nearest one: better layers cost more than was requested.
            let nearest = better.iter().rev().copied().find(is_live).or(better.last().copied());
            allowed.extend(nearest);
        }
        if !may_choose {
            allowed.truncate(1);
        }
        allowed
    }

    /// True if there is a layer to send.
    pub fn has_layer(&self, now: Instant) -> bool {
        !self.allowed(now).is_empty()
    }

    /// True if `layer` is worse than the current one, or a pause.
    pub fn is_lowered_to(&self, layer: Option<usize>) -> bool {
        self.current.is_some_and(|current| {
            layer.is_none_or(|layer| self.layers.rank(layer) > self.layers.rank(current))
        })
    }

    /// True if this layer is better than the current one.
    fn is_upgrade(&self, index: usize) -> bool {
        self.current.is_none_or(|current| self.layers.rank(index) < self.layers.rank(current))
    }
}

/// Allocates a layer to each subscription of one receiver.
///
/// Each subscription gets its lowest allowed layer as long as the sum fits: those with a current layer first, then by
/// bitrate, lowest first; the others are paused. Then all in turn are raised to the next better layer. Without an
/// estimate each gets its best layer.
pub fn allocate(demands: &[LayerDemand<'_>], budget: Budget, now: Instant) -> Vec<Option<usize>> {
    let allowed: Vec<Vec<usize>> = demands.iter().map(|demand| demand.allowed(now)).collect();
    let Some(estimate) = budget.estimate else {
        return allowed.iter().map(|layers| layers.first().copied()).collect();
    };
    let bits = |which: usize, position: usize| {
        allowed[which].get(position).map_or(0, |index| demands[which].layers.steady_bits(*index, now))
    };
    // Indices into `allowed`.
    let mut chosen: Vec<Option<usize>> = vec![None; demands.len()];
    let mut sum = budget.held;
    let lowest = |which: &usize| allowed[*which].len().saturating_sub(1);
    let mut order: Vec<usize> = (0..demands.len()).filter(|which| !allowed[*which].is_empty()).collect();
    order.sort_by_key(|which| (demands[*which].current.is_none(), bits(*which, lowest(which))));
    for which in order {
        let demand = &demands[which];
        let kept = || allowed[which].iter().position(|index| Some(*index) == demand.current);
        let first = if budget.may_lower { None } else { kept() }.unwrap_or(lowest(&which));
        let least = bits(which, first);
        let next = sum.saturating_add(least);
        let fits = match demand.current {
            Some(_) => next <= estimate || !budget.may_lower,
            None => with_headroom(next) <= estimate && !demand.rests,
        };
        // A layer without recent packets takes no bandwidth.
        if fits || least == 0 {
            (chosen[which], sum) = (Some(first), next);
        }
    }

    // Current layers are restored first. Otherwise one subscription's upgrade would lower another.
    for step in [AllocationStep::Keep, AllocationStep::Upgrade] {
        loop {
            let mut moved = false;
            for (which, demand) in demands.iter().enumerate() {
                let Some(position) = chosen[which] else { continue };
                let Some(better) = position.checked_sub(1) else { continue };
                let index = allowed[which][better];
                let next = sum.saturating_sub(bits(which, position)).saturating_add(bits(which, better));
                let fits = match step {
                    AllocationStep::Keep => !demand.is_upgrade(index) && next <= estimate,
                    // The bitrate of a layer without recent packets is unknown, so there is no upgrade to it.
                    AllocationStep::Upgrade => bits(which, better) > 0 && with_headroom(next) <= estimate,
                };
                if fits {
                    (chosen[which], sum, moved) = (Some(better), next, true);
                }
            }
            if !moved {
                break;
            }
        }
    }
    chosen.iter().zip(&allowed).map(|(at, layers)| at.and_then(|at| layers.get(at).copied())).collect()
}

/// Pass of the allocation.
#[derive(Clone, Copy)]
enum AllocationStep {
    /// Raises to layers that are at most as good as the current one.
    Keep,
    /// Raises to better layers.
    Upgrade,
}

/// Bits a second that one receiver would take with the best layer of each subscription, plus headroom for the upgrade:
/// the target for bandwidth probes.
pub fn desired<'a>(demands: impl IntoIterator<Item = &'a LayerDemand<'a>>, now: Instant, held: u64) -> u64 {
    let best = demands.into_iter().filter_map(|demand| {
        let index = demand.allowed(now).first().copied()?;
        Some(demand.layers.steady_bits(index, now))
    });
    with_headroom(best.fold(held, u64::saturating_add))
}

fn with_headroom(bits: u64) -> u64 {
    bits.saturating_add(bits / 100 * HEADROOM_PERCENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to start at some time")]
    fn noon() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn named(rids: &[&str]) -> Layers {
        Layers::new(rids.iter().map(|rid| Some((*rid).to_owned())).collect())
    }

    /// A track that was sent for five seconds with a packet of each layer every 20 ms, at the given kbit/s; layers of 0
    /// were never sent.
    fn track(layers: &[(&str, usize)], start: Instant) -> Layers {
        let mut track = named(&layers.iter().map(|(rid, _)| *rid).collect::<Vec<_>>());
        for packet in 0..=250 {
            for (index, (_, kbits)) in layers.iter().enumerate() {
                if *kbits > 0 {
                    track.saw(index, start + ms(packet * 20), kbits * 1000 / 8 / 50);
                }
            }
        }
        track
    }

    /// Time at which [`track`] ends.
    fn end(start: Instant) -> Instant {
        start + ms(5000)
    }

    fn wish(preferred: &str) -> LayerWish {
        LayerWish { preferred: Some(preferred.to_owned()), ..LayerWish::default() }
    }

    fn give(estimate: Option<u64>, held: u64) -> Budget {
        Budget { estimate, held, may_lower: true }
    }

    fn about(bits: u64, expected: u64) -> bool {
        bits.abs_diff(expected) <= expected / 10
    }

    #[test]
    fn layers_are_ranked_by_name() {
        let layers = named(&["h", "a", "q"]);
        assert_eq!(layers.len(), 3);
        assert_eq!(layers.index_of(Some("q")), Some(2));
        assert_eq!((layers.index_of(Some("x")), layers.index_of(None)), (None, None));
        assert_eq!((layers.rid(1), layers.rid(3)), (Some("a"), None));
        assert_eq!(layers.best_first().collect::<Vec<_>>(), [1, 0, 2]);

        let single = Layers::new(vec![None]);
        assert_eq!((single.index_of(None), single.rid(0)), (Some(0), None));
        assert_eq!(Layers::new(Vec::new()).len(), 0);
    }

    #[test]
    fn track_is_active_for_30_s_after_a_packet() {
        let start = noon();
        let mut layers = named(&["a", "b"]);
        assert!(!layers.ever() && !layers.is_active(start));
        layers.saw(1, start, 100);
        assert!(layers.ever() && layers.is_active(start + ms(29_999)));
        assert!(!layers.is_active(start + ms(30_000)) && layers.ever());
    }

    #[test]
    fn unknown_layer_is_not_live_and_has_no_bits() {
        let start = noon();
        let mut layers = named(&["a"]);
        layers.saw(7, start, 100);
        assert!(!layers.ever() && !layers.is_live(0, start) && !layers.is_live(7, start));
        assert_eq!((layers.bits(7, start), layers.steady_bits(7, start)), (0, 0));
    }

    #[test]
    fn layer_dies_when_only_others_are_sent() {
        let start = noon();
        for apart in [1, 20, 33, 50, 100, 200] {
            let mut layers = named(&["a", "b"]);
            layers.saw(0, start, 100);
            let mut died = None;
            for at in (0..2000).step_by(apart) {
                let now = start + ms(at);
                layers.saw(1, now, 100);
                if died.is_none() && !layers.is_live(0, now) {
                    died = Some(at);
                }
            }
            let died = died.expect("it dies");
            assert!((400..=600).contains(&died), "{died} ms, a packet each {apart} ms");
            assert!(layers.is_live(1, start + ms(2000)));

            layers.saw(0, start + ms(2000), 100);
            assert!(layers.is_live(0, start + ms(2000)), "it came back");
        }
    }

    #[test]
    fn low_frame_rate_layer_stays_live() {
        let start = noon();
        for between in [50, 200, 500, 1000, 5000] {
            let mut layers = named(&["a", "b", "c"]);
            for picture in 0..20 {
                for index in 0..3 {
                    for part in 0..4 {
                        let now = start + ms(picture * between + index as u64 * 10 + part * 3);
                        layers.saw(index, now, 1000);
                        let seen = if picture == 0 { index } else { 2 };
                        assert!((0..=seen).all(|each| layers.is_live(each, now)), "{between} ms");
                    }
                }
            }
        }
    }

    #[test]
    fn paused_track_stays_live_for_a_while() {
        let start = noon();
        let layers = track(&[("a", 500), ("b", 100)], start);
        for later in [0, 400, 5000, 29_000] {
            assert!(layers.is_live(0, end(start) + ms(later)) && layers.is_live(1, end(start) + ms(later)));
        }
        assert!(!layers.is_live(0, end(start) + ms(31_000)));
    }

    #[test]
    fn bitrates_cover_one_and_four_seconds() {
        let start = noon();
        let mut layers = track(&[("a", 800), ("b", 0)], start);
        let now = end(start);
        assert!(about(layers.bits(0, now), 800_000), "{}", layers.bits(0, now));
        assert!(about(layers.steady_bits(0, now), 800_000), "{}", layers.steady_bits(0, now));
        assert_eq!(layers.bits(1, now), 0);

        // A keyframe of 60 kB: visible in the last second, barely in the steady rate.
        layers.saw(0, now, 60_000);
        assert!(layers.bits(0, now) > 1_150_000);
        assert!(layers.steady_bits(0, now) < 950_000);

        assert!(layers.bits(0, now + ms(600)) < layers.bits(0, now), "it falls in silence");
        assert_eq!(layers.bits(0, now + ms(1300)), 0);
        assert!(layers.steady_bits(0, now + ms(1300)) > 0);
        assert_eq!(layers.steady_bits(0, now + ms(5000)), 0);
    }

    #[test]
    fn counting_restarts_after_a_pause() {
        let start = noon();
        let mut layers = track(&[("a", 800)], start);
        let later = end(start) + ms(60_000);
        for packet in 0..=25 {
            layers.saw(0, later + ms(packet * 20), 2000);
        }
        let now = later + ms(500);
        assert!(about(layers.steady_bits(0, now), 832_000), "{}", layers.steady_bits(0, now));
    }

    /// Layers with their kbit/s, the preferred one, and the expected one.
    type Case = (&'static [(&'static str, usize)], &'static str, Option<&'static str>);

    /// Names of the allocated layers.
    fn aims<'a>(demands: &[LayerDemand<'a>], estimate: Option<u64>, now: Instant) -> Vec<Option<&'a str>> {
        let aims = allocate(demands, give(estimate, 0), now);
        aims.iter().zip(demands).map(|(aim, demand)| aim.and_then(|index| demand.layers.rid(index))).collect()
    }

    #[test]
    fn track_without_simulcast_gets_its_only_layer() {
        let start = noon();
        let layers = Layers::new(vec![None]);
        let fixed = LayerWish {
            preferred: Some("a".to_owned()),
            by_bandwidth: Choice::Fixed,
            when_missing: Choice::Fixed,
        };
        for wish in [&LayerWish::default(), &fixed] {
            let demand = LayerDemand { layers: &layers, wish, current: None, rests: false };
            for estimate in [None, Some(0), Some(1_000_000)] {
                assert_eq!(allocate(&[demand], give(estimate, 0), start), [Some(0)]);
            }
        }
        let none = Layers::new(Vec::new());
        let demand = LayerDemand { layers: &none, wish: &fixed, current: None, rests: false };
        assert_eq!(allocate(&[demand], give(Some(0), 0), start), [None]);
        assert_eq!(allocate(&[], give(Some(0), 0), start), []);
    }

    #[test]
    fn unknown_estimate_gives_preferred_layer() {
        let start = noon();
        let layers = track(&[("a", 2000), ("b", 500), ("c", 100)], start);
        for (wish, expected) in [
            (LayerWish::default(), "a"),
            (wish(""), "a"),
            (wish("a"), "a"),
            (wish("b"), "b"),
            (wish("c"), "c"),
        ] {
            let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
            assert_eq!(aims(&[demand], None, end(start)), [Some(expected)], "{wish:?}");
        }
    }

    #[test]
    fn preferred_layer_is_the_upper_bound() {
        let start = noon();
        let layers = track(&[("a", 200), ("b", 100), ("c", 50)], start);
        let wish = wish("b");
        for current in [None, Some(0), Some(1), Some(2)] {
            let demand = LayerDemand { layers: &layers, wish: &wish, current, rests: false };
            assert_eq!(aims(&[demand], Some(u64::MAX), end(start)), [Some("b")]);
        }
    }

    #[test]
    fn missing_layer_is_replaced_by_worse_then_better() {
        let start = noon();
        let cases: [Case; 6] = [
            (&[("a", 900), ("b", 0), ("c", 100), ("d", 50)], "b", Some("c")),
            (&[("a", 900), ("b", 500), ("c", 0), ("d", 0)], "c", Some("b")),
            (&[("a", 900), ("b", 500)], "aa", Some("b")),
            (&[("a", 900), ("b", 500)], "x", Some("b")),
            (&[("b", 900), ("c", 500)], "a", Some("b")),
            (&[("a", 0), ("b", 0)], "a", Some("a")),
        ];
        for (layers, preferred, expected) in cases {
            let layers = track(layers, start);
            for by_bandwidth in [Choice::Free, Choice::Fixed] {
                let wish = LayerWish { by_bandwidth, ..wish(preferred) };
                let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
                assert_eq!(aims(&[demand], None, end(start)), [expected], "{preferred}");
            }
        }
    }

    #[test]
    fn missing_fixed_layer_is_not_replaced() {
        let start = noon();
        let cases: [Case; 5] = [
            (&[("a", 900), ("b", 0), ("c", 100)], "b", None),
            (&[("a", 900), ("b", 500)], "x", None),
            (&[("a", 900), ("b", 500)], "a", Some("a")),
            (&[("a", 0), ("b", 0)], "b", Some("b")),
            (&[("a", 0), ("b", 0)], "x", None),
        ];
        for (layers, preferred, expected) in cases {
            let layers = track(layers, start);
            let wish = LayerWish { when_missing: Choice::Fixed, ..wish(preferred) };
            let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
            assert_eq!(aims(&[demand], None, end(start)), [expected], "{preferred}");
        }

        // Without a preferred layer none can be missing.
        let layers = track(&[("a", 0), ("b", 500)], start);
        let wish = LayerWish { when_missing: Choice::Fixed, ..LayerWish::default() };
        let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
        assert_eq!(aims(&[demand], None, end(start)), [Some("b")]);
    }

    #[test]
    fn current_layer_is_kept_while_track_pauses() {
        let start = noon();
        let layers = track(&[("a", 900), ("b", 100)], start);
        let later = end(start) + ms(60_000);
        for (by_bandwidth, current, expected) in [
            (Choice::Free, Some(1), Some("b")),
            (Choice::Free, None, Some("a")),
            (Choice::Fixed, Some(1), Some("a")),
        ] {
            for when_missing in [Choice::Free, Choice::Fixed] {
                let wish = LayerWish { by_bandwidth, when_missing, ..wish("a") };
                let demand = LayerDemand { layers: &layers, wish: &wish, current, rests: false };
                assert_eq!(aims(&[demand], Some(150_000), later), [expected]);
            }
        }
    }

    #[test]
    fn low_estimate_gives_lower_layer() {
        let start = noon();
        let layers = track(&[("a", 2000), ("b", 500), ("c", 100)], start);
        let wish = LayerWish::default();
        let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
        for (kbits, expected) in [(130, "c"), (500, "c"), (700, "b"), (2000, "b"), (2600, "a")] {
            assert_eq!(aims(&[demand], Some(kbits * 1000), end(start)), [Some(expected)], "{kbits}");
        }
        assert_eq!(allocate(&[demand], give(Some(700_000), 200_000), end(start)), [Some(2)], "with sound");
    }

    #[test]
    fn fixed_layer_is_not_lowered_by_estimate() {
        let start = noon();
        let layers = track(&[("a", 2000), ("b", 500), ("c", 100)], start);
        for (preferred, kbits) in [("a", 2400), ("b", 600), ("c", 130)] {
            let wish = LayerWish { by_bandwidth: Choice::Fixed, ..wish(preferred) };
            for current in [None, Some(2)] {
                let demand = LayerDemand { layers: &layers, wish: &wish, current, rests: false };
                assert_eq!(aims(&[demand], Some(kbits * 1000), end(start)), [Some(preferred)]);
            }
        }
    }

    #[test]
    fn video_that_does_not_fit_is_paused() {
        let start = noon();
        let now = end(start);
        let simulcast = track(&[("a", 2000), ("b", 500), ("c", 100)], start);
        let mut single = Layers::new(vec![None]);
        for packet in 0..=250 {
            single.saw(0, start + ms(packet * 20), 250);
        }
        let (free, fixed) =
            (LayerWish::default(), LayerWish { by_bandwidth: Choice::Fixed, ..LayerWish::default() });
        for (layers, wish, lowest) in
            [(&simulcast, &free, Some(2)), (&single, &free, Some(0)), (&simulcast, &fixed, Some(0))]
        {
            let takes = layers.steady_bits(lowest.unwrap(), now);
            let aim = |current, percent: u64, rests, may_lower| {
                let demand = LayerDemand { layers, wish, current, rests };
                let estimate = Some(40_000 + takes * percent / 100);
                allocate(&[demand], Budget { estimate, held: 40_000, may_lower }, now)[0]
            };
            assert_eq!(aim(lowest, 99, false, true), None);
            assert_eq!(aim(lowest, 99, false, false), lowest, "not yet");
            assert_eq!(aim(lowest, 100, false, true), lowest);
            assert_eq!(aim(None, 110, false, true), None, "a resumed video needs headroom");
            assert_eq!(aim(None, 170, false, true), lowest);
            assert_eq!(aim(None, 170, true, true), None, "and some time");
        }
    }

    #[test]
    fn current_layer_is_kept_until_lowering_is_allowed() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 200)], start);
        let wish = LayerWish::default();
        let demand = |current| LayerDemand { layers: &layers, wish: &wish, current, rests: false };
        let aim = |may_lower| {
            let budget = Budget { estimate: Some(900_000), held: 0, may_lower };
            allocate(&[demand(Some(0)), demand(None)], budget, end(start))
        };
        assert_eq!((aim(true), aim(false)), (vec![Some(1), Some(1)], vec![Some(0), None]));
        assert!(demand(Some(0)).is_lowered_to(Some(1)) && demand(Some(1)).is_lowered_to(None));
        assert!(!demand(Some(1)).is_lowered_to(Some(0)) && !demand(None).is_lowered_to(None));
    }

    #[test]
    fn smaller_videos_take_precedence() {
        let start = noon();
        let (large, small) = (track(&[("a", 500)], start), track(&[("a", 100)], start));
        let wish = LayerWish::default();
        let demand = |layers, current| LayerDemand { layers, wish: &wish, current, rests: false };
        let now = end(start);
        assert_eq!(
            aims(&[demand(&large, Some(0)), demand(&small, Some(0))], Some(520_000), now),
            [None, Some("a")]
        );
        let aims = aims(&[demand(&large, Some(0)), demand(&small, None)], Some(520_000), now);
        assert_eq!(aims, [Some("a"), None], "what flows before what does not");
    }

    #[test]
    fn fixed_layer_leaves_remainder_to_others() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 100)], start);
        let (free, fixed) =
            (LayerWish::default(), LayerWish { by_bandwidth: Choice::Fixed, ..LayerWish::default() });
        let demand = |wish| LayerDemand { layers: &layers, wish, current: None, rests: false };
        let now = end(start);
        assert_eq!(aims(&[demand(&free), demand(&fixed)], Some(2_000_000), now), [Some("b"), Some("a")]);
        assert_eq!(aims(&[demand(&free), demand(&fixed)], Some(2_500_000), now), [Some("a"), Some("a")]);
    }

    #[test]
    fn only_upgrades_need_headroom() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 200)], start);
        let wish = LayerWish::default();
        let now = end(start);
        let takes = layers.steady_bits(0, now);
        let aim = |current, percent: u64| {
            let demand = LayerDemand { layers: &layers, wish: &wish, current, rests: false };
            allocate(&[demand], give(Some(takes * percent / 100), 0), now)[0]
        };
        assert_eq!((aim(Some(1), 114), aim(Some(1), 116)), (Some(1), Some(0)));
        assert_eq!((aim(None, 114), aim(None, 116)), (Some(1), Some(0)));
        assert_eq!((aim(Some(0), 99), aim(Some(0), 100)), (Some(1), Some(0)));
    }

    #[test]
    fn upgrades_are_round_robin() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 400), ("c", 100)], start);
        let wish = LayerWish::default();
        let demand = LayerDemand { layers: &layers, wish: &wish, current: None, rests: false };
        let three = [demand; 3];
        let b = [Some("b"); 3];
        let now = end(start);
        assert_eq!(aims(&three, Some(500_000), now), [Some("c"); 3]);
        assert_eq!(aims(&three, Some(750_000), now), [Some("b"), Some("c"), Some("c")]);
        assert_eq!(aims(&three, Some(1_500_000), now), b, "all before one gets more");
        assert_eq!(aims(&three, Some(2_200_000), now), [Some("a"), Some("b"), Some("b")]);
        assert_eq!(aims(&three, Some(4_000_000), now), [Some("a"); 3]);
    }

    #[test]
    fn upgrade_does_not_lower_another_subscription() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 100)], start);
        let wish = LayerWish::default();
        let demand = |current| LayerDemand { layers: &layers, wish: &wish, current, rests: false };
        for kbits in [1_150, 1_300, 1_500, 2_000] {
            let aims = aims(&[demand(Some(1)), demand(Some(0))], Some(kbits * 1000), end(start));
            assert_eq!(aims, [Some("b"), Some("a")], "{kbits} kbit/s");
        }
    }

    #[test]
    fn layer_of_unknown_bitrate_gets_no_upgrade() {
        let start = noon();
        let mut layers = track(&[("a", 1000), ("b", 100)], start);
        // The whole track paused, then the lower layer resumes first.
        let later = end(start) + ms(10_000);
        layers.saw(1, later, 100);
        assert!(layers.is_live(0, later));
        let wish = LayerWish::default();
        let aim = |current| {
            let demand = LayerDemand { layers: &layers, wish: &wish, current, rests: false };
            allocate(&[demand], give(Some(200_000), 0), later)[0]
        };
        assert_eq!((aim(Some(1)), aim(None), aim(Some(0))), (Some(1), Some(1), Some(0)));
    }

    #[test]
    fn desired_is_best_layers_plus_headroom() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 100)], start);
        let (best, low) = (LayerWish::default(), wish("b"));
        let demand = |wish| LayerDemand { layers: &layers, wish, current: Some(1), rests: false };
        let desired = desired(&[demand(&best), demand(&low)], end(start), 40_000);
        assert!(about(desired, 1_140_000 * 115 / 100), "{desired}");

        // With the result as the estimate everything fits.
        let aims = allocate(&[demand(&best), demand(&low)], give(Some(desired), 40_000), end(start));
        assert_eq!(aims, [Some(0), Some(1)]);
        assert_eq!(super::desired(&[], end(start), 0), 0);
    }

    #[test]
    fn weak_receiver_does_not_affect_strong_one() {
        let start = noon();
        let layers = track(&[("a", 1000), ("b", 100)], start);
        let wish = LayerWish::default();
        let demand = |current| [LayerDemand { layers: &layers, wish: &wish, current, rests: false }];
        let now = end(start);
        assert_eq!(aims(&demand(Some(0)), Some(5_000_000), now), [Some("a")]);
        assert_eq!(aims(&demand(Some(0)), Some(150_000), now), [Some("b")], "the weak one");
        assert_eq!(aims(&demand(Some(0)), Some(5_000_000), now), [Some("a")], "as before");
    }

    proptest! {
        #[test]
        fn allocation_fits_and_is_stable(
            tracks in prop::collection::vec(
                (prop::collection::vec(prop_oneof![1 => Just(0_usize), 4 => 10..3000_usize], 1..4),
                 prop::option::of(0..4_usize), any::<bool>(), any::<bool>(), prop::option::of(0..4_usize)),
                0..6,
            ),
            estimate in 0..20_000_000_u64,
            held in 0..500_000_u64,
        ) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let start = noon();
            let now = end(start);
            let choice = |free| if free { Choice::Free } else { Choice::Fixed };
            let tracks: Vec<(Layers, LayerWish, Option<usize>)> = tracks
                .into_iter()
                .map(|(kbits, preferred, bandwidth, missing, current)| {
                    let layers: Vec<_> = NAMES.iter().copied().zip(kbits).collect();
                    let wish = LayerWish {
                        preferred: preferred.map(|index| NAMES[index].to_owned()),
                        by_bandwidth: choice(bandwidth),
                        when_missing: choice(missing),
                    };
                    (track(&layers, start), wish, current)
                })
                .collect();
            let demands: Vec<_> = tracks
                .iter()
                .map(|(layers, wish, current)| LayerDemand { layers, wish, current: *current, rests: false })
                .collect();

            let aims = allocate(&demands, give(Some(estimate), held), now);
            prop_assert_eq!(aims.len(), demands.len());
            let mut sum = held;
            for (demand, aim) in demands.iter().zip(&aims) {
                let allowed = demand.allowed(now);
                let Some(aim) = aim else {
                    let worst = allowed.last().map_or(0, |worst| demand.layers.steady_bits(*worst, now));
                    prop_assert!(allowed.is_empty() || worst > 0, "paused though it takes nothing");
                    continue;
                };
                prop_assert!(allowed.contains(aim));
                sum += demand.layers.steady_bits(*aim, now);
            }
            prop_assert!(sum <= estimate.max(held), "more than fits");

            // Subscriptions keep the layers allocated to them.
            let settled: Vec<_> =
                demands.iter().zip(&aims).map(|(demand, aim)| LayerDemand { current: *aim, ..*demand }).collect();
            let again = allocate(&settled, give(Some(estimate), held), now);
            for (before, (after, demand)) in aims.iter().zip(again.iter().zip(&demands)) {
                let rank = |index: &Option<usize>| index.map(|index| demand.layers.rank(index));
                prop_assert!(before.is_none() || after.is_some(), "a video that fits is paused");
                prop_assert!(before.is_none() || rank(after) <= rank(before), "it swings");
            }
        }

        #[test]
        fn counting_tolerates_any_time(
            packets in prop::collection::vec((0..3_usize, 0..10_000_u64, 0..100_000_usize), 1..100),
        ) {
            let start = noon() + ms(20_000);
            let mut layers = named(&["a", "b"]);
            for (index, at, bytes) in packets {
                // Time goes forward and back.
                layers.saw(index, start + ms(at), bytes);
                layers.is_live(index, start);
                prop_assert!(layers.bits(index, start + ms(at)) <= 100 * 100_000 * 32);
                layers.steady_bits(index, start - ms(at));
            }
        }
    }
}
