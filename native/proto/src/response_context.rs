//! Which of several final responses the caller gets (RFC 3261 section 16.7 step 6, as operators know it).
//!
//! Departs from the RFC where a border element must: a 408 or 503 of one dead branch never hides what a living one
//! said, and a challenge comes before other refusals of its class.

/// How good a final response of 300 or more is: the lowest wins.
pub const fn rank(status_code: u16, caller_cancelled: bool) -> u16 {
    let class_offset = status_code % 100;
    match status_code {
        487 if caller_cancelled => 0,
        600..=699 => 300 + class_offset,
        300..=399 => 400 + class_offset,
        401 | 407 | 415 | 420 | 484 => 500,
        408 => 800,
        503 => 801,
        400..=499 => 600 + class_offset,
        _ => 700 + class_offset,
    }
}

/// Whether `new` should replace `best`; of equals the first stays.
pub const fn is_better(new: u16, best: Option<u16>, caller_cancelled: bool) -> bool {
    match best {
        None => true,
        Some(best) => rank(new, caller_cancelled) < rank(best, caller_cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(codes: &[u16], cancelled: bool) -> u16 {
        codes.iter().copied().reduce(|best, new| if is_better(new, Some(best), cancelled) { new } else { best }).unwrap()
    }

    #[test]
    fn a_dead_branch_does_not_hide_a_living_one() {
        assert_eq!(best(&[408, 486], false), 486);
        assert_eq!(best(&[503, 500, 408], false), 500);
        assert_eq!(best(&[503, 408], false), 408);
    }

    #[test]
    fn global_refusals_then_redirects_then_challenges_win() {
        assert_eq!(best(&[404, 407, 302, 603], false), 603);
        assert_eq!(best(&[404, 407, 302], false), 302);
        assert_eq!(best(&[404, 407], false), 407);
        assert_eq!(best(&[603, 487], true), 487);
    }
}
