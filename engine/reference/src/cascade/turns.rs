//! From prompts to answers: full steps, short paths, drafts, and the verification of short answers.

use super::job::{Job, Mark};
use super::lane::{Item, Lane, Reply};
use super::route::{ShortPath, own_risk, propagate, token_severity, uncertainty};
use super::shadow::{Adaptive, Fidelity, Found};
use super::speculate::accept;
use super::{Settings, evidence::Mix};
use crate::backend::{Sampling, Work};
use crate::error::ReferenceError;
use windtunnel_base::rng::Rng;
use windtunnel_tasks::Severity;
use windtunnel_tasks::tokenizer::EOS;

/// Counts of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    pub(super) all: u64,
    pub(super) short: u64,
    pub(super) critical_short: u64,
    pub(super) drafted: u64,
    pub(super) drafts_kept: u64,
    pub(super) draft_steps: u64,
}

/// Both models, and what the layers that act within a turn have learned.
#[derive(Debug)]
pub(super) struct Decoding<'a> {
    pub(super) frontier: Lane<'a>,
    pub(super) light: Lane<'a>,
    pub(super) settings: Settings,
    /// What L5 multiplies thresholds by.
    pub(super) factor: f64,
    /// What L5 adds to the share that is verified.
    pub(super) more: f64,
    pub(super) threshold: Adaptive,
    pub(super) found: Found,
    pub(super) tokens: Tokens,
    /// Work of verification, and what it would take.
    pub(super) shadow: (Work, f64),
}

impl<'a> Decoding<'a> {
    pub(super) fn new(frontier: Lane<'a>, light: Lane<'a>, settings: Settings) -> Self {
        Self {
            frontier,
            light,
            factor: 1.0,
            more: 0.0,
            threshold: Adaptive::new(settings.route.threshold, 1.0),
            settings,
            found: Found::default(),
            tokens: Tokens::default(),
            shadow: (Work::default(), 0.0),
        }
    }

    pub(super) fn begin(&mut self, tokens: Vec<u32>) -> Job {
        let frontier = self.frontier.begin(&tokens);
        Job {
            frontier,
            ..Job::new(tokens, self.settings.max_new_tokens, Sampling::GREEDY)
        }
    }

    /// Pages by format over both models.
    pub(super) fn mix(&self) -> Mix {
        let (a, b) = (self.frontier.mix, self.light.mix);
        Mix {
            anchors: a.anchors + b.anchors,
            int8: a.int8 + b.int8,
            fp8: a.fp8 + b.fp8,
        }
    }

    /// Work of both models, and what it would take.
    pub(super) fn spent(&self) -> (Work, f64) {
        let mut work = self.frontier.tally.work;
        work += self.light.tally.work;
        (work, self.frontier.tally.seconds + self.light.tally.seconds)
    }

    /// Runs all jobs to the ends of their answers.
    pub(super) fn advance(&mut self, jobs: &mut [Job]) -> Result<(), ReferenceError> {
        while jobs.iter().any(|j| j.open) {
            self.round(jobs)?;
            for job in jobs.iter_mut() {
                self.settle_prompt(job)?;
            }
        }
        for job in jobs.iter() {
            self.count(job);
        }
        Ok(())
    }

    /// The next token of every open job, or more of them where drafts stand; jobs that are only to
    /// read do that in the same steps.
    pub(super) fn round(&mut self, jobs: &mut [Job]) -> Result<(), ReferenceError> {
        match self.settings.route.short {
            _ if !self.settings.layers.l2 => {
                let open = all_open(jobs);
                self.full(jobs, &open)
            }
            ShortPath::EarlyExit { layers } => self.routed(jobs, Some(layers)),
            ShortPath::SmallModel => self.routed(jobs, None),
            ShortPath::Speculative { drafts } => self.drafted(jobs, drafts),
        }
    }

    /// Counts the tokens of a complete answer.
    pub(super) fn count(&mut self, job: &Job) {
        self.tokens.all += job.marks.len() as u64;
        self.tokens.short += job.short_tokens() as u64;
        let critical = |t: u32| token_severity(t) == Severity::Critical;
        let missed = |(m, t): &(&Mark, &u32)| m.short && critical(**t);
        self.tokens.critical_short +=
            job.marks.iter().zip(job.answer()).filter(missed).count() as u64;
    }

    /// The threshold of the short path now.
    fn theta(&self) -> f64 {
        self.threshold.value() * self.factor
    }

    /// Stores the pages of a prompt that was read in their formats.
    pub(super) fn settle_prompt(&mut self, job: &mut Job) -> Result<(), ReferenceError> {
        // The last token of a prompt may be read again, by verification.
        let prompt = &job.tokens[..job.prompt - 1];
        if !job.settled[0] && job.frontier.done >= job.prompt {
            self.frontier.settle(&mut job.frontier, prompt)?;
            job.settled[0] = true;
        }
        if let Some(light) = &mut job.light
            && !job.settled[1]
            && light.done >= job.prompt
        {
            self.light.settle(light, prompt)?;
            job.settled[1] = true;
        }
        Ok(())
    }

    /// Stores all full pages of a complete answer in their formats.
    pub(super) fn settle_all(&mut self, job: &mut Job) -> Result<(), ReferenceError> {
        self.frontier.settle(&mut job.frontier, &job.tokens)?;
        match &mut job.light {
            Some(light) => self.light.settle(light, &job.tokens),
            None => Ok(()),
        }
    }

    /// The frontier's next token of some jobs.
    fn full(&mut self, jobs: &mut [Job], which: &[usize]) -> Result<(), ReferenceError> {
        let replies = on_frontier(&mut self.frontier, jobs, which, None)?;
        for (&i, reply) in which.iter().zip(replies) {
            if jobs[i].reads.is_none() {
                let mark = self.mark(&reply, jobs[i].risk, false);
                jobs[i].push(reply, mark);
            }
        }
        Ok(())
    }

    fn mark(&self, reply: &Reply, before: f64, short: bool) -> Mark {
        let (route, vocab) = (&self.settings.route, self.frontier.vocab());
        let own = own_risk(&reply.sampled, vocab, route);
        Mark {
            short,
            risk: propagate(own, before, route.gamma),
            unsure: uncertainty(&reply.sampled, vocab),
        }
    }

    /// The next token of all open jobs: by the short path where the risk carried over allows it and the
    /// risk of what it proposes does too, else by the frontier in full. `exit` is where the short
    /// path leaves the frontier; none takes the light model.
    fn routed(&mut self, jobs: &mut [Job], exit: Option<usize>) -> Result<(), ReferenceError> {
        let theta = self.theta();
        let gamma = self.settings.route.gamma;
        let open = all_open(jobs);
        let (try_short, mut rest): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|&i| {
            let job = &jobs[i];
            if job.reads.is_some() {
                // The frontier reads a prompt when it is first needed, if the light model can begin.
                return exit.is_none();
            }
            // A prompt is read in full before anybody leaves early.
            let read = exit.is_none() || job.frontier.done + 1 >= job.prompt;
            let begun = exit.is_none() || !job.marks.is_empty();
            gamma * job.risk < theta && read && begun
        });
        let replies = match exit {
            Some(_) => on_frontier(&mut self.frontier, jobs, &try_short, exit)?,
            None => on_light(&mut self.light, jobs, &try_short)?,
        };
        for (&i, reply) in try_short.iter().zip(replies) {
            if jobs[i].reads.is_some() {
                continue;
            }
            let mark = self.mark(&reply, jobs[i].risk, true);
            if mark.risk < theta {
                jobs[i].push(reply, mark);
            } else {
                // The token's keys and values of the layers left out are computed anew.
                jobs[i].frontier.done -= usize::from(exit.is_some());
                rest.push(i);
            }
        }
        rest.sort_unstable();
        self.full(jobs, &rest)
    }

    /// A step of drafts of all open jobs.
    fn drafted(&mut self, jobs: &mut [Job], drafts: usize) -> Result<(), ReferenceError> {
        let open = all_open(jobs);
        let lengths: Vec<usize> = open.iter().map(|&i| jobs[i].tokens.len()).collect();
        for round in 0..drafts {
            let which: Vec<usize> = open
                .iter()
                .copied()
                .filter(|&i| {
                    let job = &jobs[i];
                    let drafted = job.tokens.len() - job.prompt - job.marks.len();
                    let ended = drafted > 0 && job.tokens.last() == Some(&EOS);
                    let room =
                        job.tokens.len() < job.room && job.marks.len() + drafted + 1 < job.most;
                    job.reads.is_none() && drafted == round && !ended && room
                })
                .collect();
            let replies = on_light(&mut self.light, jobs, &which)?;
            for (&i, reply) in which.iter().zip(replies) {
                jobs[i].tokens.push(reply.sampled.token);
            }
        }
        let mut replies = verify_drafts(&mut self.frontier, jobs, &open, &lengths)?;
        for ((&i, &length), replies) in open.iter().zip(&lengths).zip(&mut replies) {
            if jobs[i].reads.is_some() {
                continue;
            }
            let drafts = jobs[i].tokens.split_off(length);
            let chosen: Vec<u32> = replies.iter().map(|r| r.sampled.token).collect();
            let (kept, _) = accept(&drafts, &chosen);
            self.tokens.drafted += drafts.len() as u64;
            self.tokens.drafts_kept += kept as u64;
            self.tokens.draft_steps += 1;
            for reply in replies.drain(..=kept) {
                if !jobs[i].open {
                    break;
                }
                let mark = self.mark(&reply, jobs[i].risk, false);
                jobs[i].push(reply, mark);
            }
            let right = length + kept;
            jobs[i].frontier.done = jobs[i].frontier.done.min(right);
            if let Some(light) = &mut jobs[i].light {
                light.done = light.done.min(right);
            }
        }
        Ok(())
    }

    /// L4: perhaps computes an answer's short tokens again. Gives the share that differed.
    pub(super) fn verify(
        &mut self,
        job: &mut Job,
        rng: &mut Rng,
    ) -> Result<Option<f64>, ReferenceError> {
        let short = job.short_tokens();
        if short == 0 {
            return Ok(None);
        }
        let settings = self.settings.shadow;
        let risks = job.marks.iter().filter(|m| m.short).map(|m| m.risk);
        let risk = risks.fold(0.0, f64::max);
        let probability = (settings.probability(risk) + self.more).min(1.0);
        if !rng.chance(probability) {
            self.found.count(None);
            return Ok(None);
        }
        let before = self.spent();
        let chosen = self.again(job)?;
        let first = job.marks.len() - chosen.len();
        let differ = job.marks[first..]
            .iter()
            .zip(&job.answer()[first..])
            .zip(&chosen)
            .filter(|((m, given), chosen)| m.short && given != chosen)
            .count();
        let share = differ as f64 / short as f64;
        let after = self.spent();
        self.shadow.0 += after.0.since(before.0);
        self.shadow.1 += after.1 - before.1;
        self.found.count(Some((probability, share)));
        self.threshold.learn(share, &settings);
        Ok(Some(share))
    }

    /// What the verifying model would have said at the first short token of an answer and all after it,
    /// each given the answer before it.
    fn again(&mut self, job: &mut Job) -> Result<Vec<u32>, ReferenceError> {
        let first = job.marks.iter().position(|m| m.short).unwrap_or(0);
        let draws = job.marks.len() - first;
        let from = job.prompt + first - 1;
        let exit = matches!(self.settings.route.short, ShortPath::EarlyExit { .. });
        let by_light = exit && self.settings.shadow.fidelity == Fidelity::SmallModel;
        let (lane, sequence) = if by_light {
            let light = job
                .light
                .get_or_insert_with(|| self.light.begin(&job.tokens[..job.prompt]));
            (&mut self.light, light)
        } else {
            (&mut self.frontier, &mut job.frontier)
        };
        sequence.done = sequence.done.min(from);
        let mut items = [Item {
            sequence,
            tokens: &job.tokens[..job.tokens.len() - 1],
            draws,
            sampling: job.sampling,
            layers: None,
            logits: false,
        }];
        let replies = lane.run(&mut items)?;
        Ok(replies
            .into_iter()
            .flatten()
            .map(|r| r.sampled.token)
            .collect())
    }

    /// Ends a job: its pages go back or are kept.
    pub(super) fn finish(&mut self, job: Job) -> Result<(), ReferenceError> {
        self.frontier.finish(job.frontier, &job.tokens)?;
        match job.light {
            Some(light) => self.light.finish(light, &job.tokens),
            None => Ok(()),
        }
    }
}

fn all_open(jobs: &[Job]) -> Vec<usize> {
    (0..jobs.len()).filter(|&i| jobs[i].open).collect()
}

/// The jobs of `which`, which is in order.
fn chosen<'j>(jobs: &'j mut [Job], which: &[usize]) -> Vec<&'j mut Job> {
    let mut wanted = which.iter().copied().peekable();
    jobs.iter_mut()
        .enumerate()
        .filter(|(i, _)| wanted.next_if_eq(i).is_some())
        .map(|(_, job)| job)
        .collect()
}

/// What the models are shown of a job.
fn shown(tokens: &[u32], reads: Option<usize>) -> &[u32] {
    &tokens[..reads.unwrap_or(tokens.len())]
}

fn last_of_each(replies: Vec<Vec<Reply>>) -> Vec<Reply> {
    replies
        .into_iter()
        .map(|mut r| r.pop().unwrap_or_default())
        .collect()
}

fn on_frontier(
    lane: &mut Lane<'_>,
    jobs: &mut [Job],
    which: &[usize],
    layers: Option<usize>,
) -> Result<Vec<Reply>, ReferenceError> {
    let mut jobs = chosen(jobs, which);
    let mut items: Vec<Item<'_>> = jobs
        .iter_mut()
        .map(|job| Item {
            draws: job.draws(),
            sampling: job.sampling,
            tokens: shown(&job.tokens, job.reads),
            sequence: &mut job.frontier,
            layers,
            logits: job.keeps_logits,
        })
        .collect();
    Ok(last_of_each(lane.run(&mut items)?))
}

fn on_light(
    lane: &mut Lane<'_>,
    jobs: &mut [Job],
    which: &[usize],
) -> Result<Vec<Reply>, ReferenceError> {
    let mut jobs = chosen(jobs, which);
    for job in &mut jobs {
        if job.light.is_none() {
            job.light = Some(lane.begin(&job.tokens));
        }
    }
    let mut items: Vec<Item<'_>> = jobs
        .iter_mut()
        .filter_map(|job| {
            Some(Item {
                draws: job.draws(),
                sampling: job.sampling,
                tokens: shown(&job.tokens, job.reads),
                sequence: job.light.as_mut()?,
                layers: None,
                logits: job.keeps_logits,
            })
        })
        .collect();
    Ok(last_of_each(lane.run(&mut items)?))
}

/// The frontier's choices after the token before the drafts, and after each draft.
fn verify_drafts(
    lane: &mut Lane<'_>,
    jobs: &mut [Job],
    which: &[usize],
    lengths: &[usize],
) -> Result<Vec<Vec<Reply>>, ReferenceError> {
    let mut jobs = chosen(jobs, which);
    let mut items: Vec<Item<'_>> = jobs
        .iter_mut()
        .zip(lengths)
        .map(|(job, &length)| Item {
            draws: (job.tokens.len() - length + 1) * job.draws(),
            sampling: job.sampling,
            tokens: shown(&job.tokens, job.reads),
            sequence: &mut job.frontier,
            layers: None,
            logits: job.keeps_logits,
        })
        .collect();
    lane.run(&mut items)
}
