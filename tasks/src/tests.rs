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

#[test]
fn a_key_stands_for_one_task_of_each_class() {
    for class in CLASSES {
        assert_eq!(class.of_key(7), class.of_key(7));
        assert_ne!(class.of_key(7), class.of_key(8));
        assert_eq!(class.of_key(7).class, class);
    }
}

#[test]
fn one_task_in_eight_is_kept_from_training_in_every_class() {
    for class in CLASSES {
        let held = (0..8_000).filter(|&k| class.of_key(k).held_out()).count();
        // Binomial with deviation 30, a little more where prompts repeat.
        assert!((850..1_150).contains(&held), "{class:?}: {held} of 8000");
    }
}

#[test]
fn tokens_are_the_bytes_and_one_at_either_end() {
    let task = TaskClass::Tools.of_key(3);
    assert_eq!(
        task.prompt_tokens(),
        tokenizer::encode(&task.prompt).count() + 1
    );
    assert_eq!(
        task.answer_tokens(),
        tokenizer::encode(&task.answer).count() + 1
    );
}
