//! "Did you mean": the known word nearest to a misspelt one.

/// The known word that `word` most probably was meant to be, if any is near enough: a third of its
/// letters may differ, one beginning with the other counts as near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    known
        .into_iter()
        .filter_map(|candidate| {
            let other = fold(candidate);
            let distance = strsim::damerau_levenshtein(&folded, &other);
            let allowed = (folded.chars().count().max(other.chars().count()) / 3).max(1);
            let begins = folded.len() >= 3 && other.starts_with(&folded)
                || other.len() >= 3 && folded.starts_with(&other);
            // Of equally near words the one that agrees longest from its beginning.
            let likeness = strsim::jaro_winkler(&folded, &other);
            let rank = if begins { 0 } else { distance };
            (distance <= allowed || begins).then_some((rank, likeness, candidate))
        })
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(.., candidate)| candidate)
}

/// Case and the kind of separator are no difference.
fn fold(word: &str) -> String {
    word.to_lowercase().replace(['-', ' ', '.'], "_")
}

/// "did you mean `x`?" with the known word that is nearest, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(near) if near != word => format!("did you mean `{near}`?"),
        _ => String::new(),
    }
}

/// "known: a, b, c".
pub(crate) fn known<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    format!("known: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let policies = ["round_robin", "random", "cache_aware", "least_loaded"];
        assert_eq!(nearest("cache_awre", policies), Some("cache_aware"));
        assert_eq!(nearest("Round-Robin", policies), Some("round_robin"));
        assert_eq!(nearest("rand", policies), Some("random"), "a beginning");
        assert_eq!(nearest("h100", ["h200", "h100-sxm"]), Some("h100-sxm"));
        let models = ["llama-2-7b", "llama-3.1-8b"];
        assert_eq!(nearest("llama-3-8b", models), Some("llama-3.1-8b"));
        assert_eq!(nearest("prefix_affinity", policies), None);
        assert_eq!(nearest("", policies), None);
    }
}
