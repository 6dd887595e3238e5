use super::*;

#[test]
fn verifiers_accept_what_generators_call_right_and_nothing_near_it() {
    let mut rng = Rng::from_seed(1);
    for class in CLASSES {
        for _ in 0..2_000 {
            let task = class.generate(&mut rng);
            assert_eq!(verify(&task.prompt, &task.answer), Ok(()), "{task:?}");
            // One byte changed, dropped or added is wrong.
            let at = rng.below(task.answer.len() as u64) as usize;
            let mut bytes = task.answer.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).unwrap_or_default();
            assert!(
                verify(&task.prompt, &changed).is_err(),
                "{task:?}: {changed}"
            );
            assert!(verify(&task.prompt, &task.answer[..task.answer.len() - 1]).is_err());
            assert!(verify(&task.prompt, &(task.answer.clone() + " ")).is_err());
        }
    }
}

#[test]
fn what_is_no_task_is_said_to_be_none() {
    for prompt in [
        "",
        "\n",
        "M \n",
        "X hello\n",
        "M a by b c, 12",
        "S a\n",
        "T weather in x for y days\n",
    ] {
        assert_eq!(
            verify(prompt, ""),
            Err(Wrong::NoTask(prompt.to_owned())),
            "{prompt:?}"
        );
    }
}

#[test]
fn names_are_too_many_to_learn_by_heart() {
    let mut rng = Rng::from_seed(2);
    let mut prompts: Vec<String> = (0..20_000).map(|_| generate(&mut rng).prompt).collect();
    prompts.sort_unstable();
    prompts.dedup();
    assert!(
        prompts.len() > 19_500,
        "{} of 20000 prompts differ",
        prompts.len()
    );
}

#[test]
fn figures_are_critical_and_wording_is_not() {
    assert_eq!(severity(b'7'), Severity::Critical);
    assert_eq!(severity(b'"'), Severity::High);
    assert_eq!(severity(b'a'), Severity::Low);
}
