//! Where requests come from: synthetic clients, or a trace.

use super::questions::QuestionsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Rate, Span};
pub use windtunnel_tasks::TaskClass;

/// Traffic. The fields of a client given here are the defaults of all `clients`; without
/// `clients` there is one. With `trace`, requests come from a file instead.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficSpec {
    /// Mean rate of all clients together, in requests (or, with `session`, conversations) per
    /// second. With a trace: rescales its rate.
    pub request_rate: Option<Rate>,
    /// Stop after so many requests.
    pub num_prompts: Option<u64>,
    /// Stop sending after this time.
    pub duration: Option<Span>,
    /// Requests in flight beyond which clients wait, as with vLLM's `--max-concurrency`.
    pub max_concurrency: Option<u32>,
    /// When requests come.
    pub arrivals: Option<ArrivalSpec>,
    /// Prompt lengths in tokens, without shared prefix and conversation history.
    pub input: Option<LengthSpec>,
    /// Output lengths in tokens; hidden from policies.
    pub output: Option<LengthSpec>,
    /// Client's limit on the output in tokens; absent: none.
    pub max_output_tokens: Option<u32>,
    /// Real routine tasks instead of lengths: prompts and right answers have their own.
    pub tasks: Option<TasksSpec>,
    /// What is asked, and how often the same.
    pub questions: Option<QuestionsSpec>,
    /// Prefixes that many requests share.
    pub prefix: Option<PrefixSpec>,
    /// Conversations of several turns.
    pub session: Option<SessionSpec>,
    /// What policies are told about output lengths.
    pub predictor: Option<PredictorSpec>,
    /// Service times at stations (`engine.kind = "station"`).
    pub service: Option<TimeSpec>,
    /// Several clients, each with a share of the rate and its own character.
    pub clients: Vec<ClientSpec>,
    /// Requests from a file.
    pub trace: Option<TraceSpec>,
}

/// One client; what is absent comes from `[traffic]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSpec {
    /// Name, for reports.
    pub name: String,
    /// Share of `request_rate`, relative to the other clients' shares; 1 if absent.
    pub share: Option<f64>,
    /// Who pays; `default` if absent.
    pub tenant: Option<String>,
    /// Class of service; `default` if absent.
    pub class: Option<String>,
    /// Share of its requests that are prompt injections, 0 to 1; hidden from policies. 0 if absent.
    pub attack: Option<f64>,
    /// When its requests come.
    pub arrivals: Option<ArrivalSpec>,
    /// Prompt lengths.
    pub input: Option<LengthSpec>,
    /// Output lengths.
    pub output: Option<LengthSpec>,
    /// Limit on the output.
    pub max_output_tokens: Option<u32>,
    /// Real routine tasks.
    pub tasks: Option<TasksSpec>,
    /// What it asks.
    pub questions: Option<QuestionsSpec>,
    /// Shared prefixes; groups are this client's own.
    pub prefix: Option<PrefixSpec>,
    /// Conversations.
    pub session: Option<SessionSpec>,
    /// Length predictor.
    pub predictor: Option<PredictorSpec>,
    /// Service times.
    pub service: Option<TimeSpec>,
}

/// When requests come. The mean rate is `request_rate`; these are shapes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ArrivalSpec {
    /// Independent of each other.
    Poisson,
    /// At equal distances.
    Constant,
    /// Gamma distances. Burstiness is the gamma shape, as in vLLM: 1 is Poisson, less is burstier;
    /// the coefficient of variation is `1 / sqrt(burstiness)`.
    Gamma {
        /// Gamma shape; more than zero.
        burstiness: f64,
    },
    /// Weibull distances.
    Weibull {
        /// Weibull shape; more than zero; 1 is Poisson, less is burstier.
        shape: f64,
    },
    /// Poisson while on, silent while off; on and off times are exponential. The mean rate over
    /// both is `request_rate`.
    OnOff {
        /// Mean length of a burst.
        on: Span,
        /// Mean length of a silence.
        off: Span,
    },
    /// Poisson with rate `1 + amplitude * cos(2 pi (t - peak) / period)` times the mean.
    Diurnal {
        /// 0 to 1.
        amplitude: f64,
        /// When the first peak is.
        #[serde(default)]
        peak: Span,
        /// Length of a day.
        #[serde(default = "one_day")]
        period: Span,
    },
    /// Poisson whose rate jumps: `request_rate` before `at`, `factor` times it from then on.
    Step {
        /// When it jumps.
        at: Span,
        /// By which factor.
        factor: f64,
    },
    /// Poisson whose rate goes evenly from `request_rate` at `from` to `factor` times it at `to`.
    Ramp {
        /// Begin of the ramp.
        from: Span,
        /// End of the ramp.
        to: Span,
        /// Final factor.
        factor: f64,
    },
    /// Poisson with a crowd: the rate rises to `factor` times the mean within `rise`, stays so for
    /// `hold` and falls back within `fall`.
    FlashCrowd {
        /// When it begins to rise.
        at: Span,
        /// Rise time.
        rise: Span,
        /// Time at the top.
        hold: Span,
        /// Fall time.
        fall: Span,
        /// Factor at the top.
        factor: f64,
    },
}

impl ArrivalSpec {
    /// When more comes than usual, if it is for a while.
    pub(super) fn disturbance(&self) -> Option<super::DisturbanceSpec> {
        match *self {
            Self::FlashCrowd {
                at,
                rise,
                hold,
                fall,
                ..
            } => Some(super::DisturbanceSpec {
                from: at,
                to: Span(at.0 + rise.0 + hold.0 + fall.0),
            }),
            _ => None,
        }
    }
}

fn one_day() -> Span {
    Span(windtunnel_base::time::SimDuration::from_secs(86_400))
}

/// A length in tokens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthSpec {
    /// Always the same.
    Fixed {
        /// Tokens.
        tokens: u32,
    },
    /// Any of a range, equally likely.
    Uniform {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Exponential, rounded up.
    Exponential {
        /// Mean tokens.
        mean: f64,
        /// Least; 1 if absent.
        min: Option<u32>,
        /// Most; longer draws become this.
        max: Option<u32>,
    },
    /// Lognormal by its mean and the standard deviation of its logarithm.
    Lognormal {
        /// Mean tokens, before the limits.
        mean: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
        /// Least; 1 if absent.
        min: Option<u32>,
        /// Most; longer draws become this.
        max: Option<u32>,
    },
    /// As given: token counts with weights.
    Empirical {
        /// Token counts.
        tokens: Vec<u32>,
        /// Weights; all equal if absent.
        weights: Option<Vec<f64>>,
    },
}

/// A time, drawn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeSpec {
    /// Always the same.
    Fixed {
        /// The time.
        value: Span,
    },
    /// Exponential.
    Exponential {
        /// Mean.
        mean: Span,
    },
    /// Lognormal by its mean and the standard deviation of its logarithm.
    Lognormal {
        /// Mean.
        mean: Span,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Gamma by its mean and squared coefficient of variation.
    Gamma {
        /// Mean.
        mean: Span,
        /// Variance over squared mean; more than zero.
        cv2: f64,
    },
    /// A mixture of two exponentials with balanced means.
    Hyperexponential {
        /// Mean.
        mean: Span,
        /// Variance over squared mean; at least 1.
        cv2: f64,
    },
    /// One of two values.
    TwoPoint {
        /// The smaller.
        low: Span,
        /// The larger.
        high: Span,
        /// Probability of the larger, 0 to 1.
        p_high: f64,
    },
}

/// Real routine tasks, each with one right answer that a rule gives. An engine that computes
/// (`engine.kind = "reference"`) reads their prompts, answers until its model ends the answer or
/// `max_output_tokens` are out, and has the answer verified; a simulated one takes the length of the
/// right answer. Lengths and prefixes are not said beside them. With `session` every turn of a conversation
/// is a task, whose prompt repeats nothing of the turns before it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TasksSpec {
    /// Classes of tasks, each as likely as the others; all if empty.
    pub classes: Vec<TaskClass>,
    /// So many different tasks, each as likely as the others; every one is new if absent.
    pub distinct: Option<u64>,
    /// With `session`: share of turns, after the first of a conversation, that ask the same again.
    pub no_change: f64,
}

/// Prefixes that many requests share.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixSpec {
    /// How many different prefixes there are.
    pub groups: u32,
    /// Tokens of each, in front of `input`.
    pub tokens: LengthSpec,
    /// Popularity: Zipf exponent over the groups; 0 if absent (all equal).
    pub zipf: Option<f64>,
    /// Tokens that all groups share in front of that (a system prompt).
    #[serde(default)]
    pub system_tokens: u32,
}

/// Conversations. Each turn's prompt is all that was said before plus a new input; the next turn
/// comes a think time after the answer to the last one (closed loop).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Turns of a conversation.
    pub turns: LengthSpec,
    /// Time between an answer and the next turn.
    pub think_time: TimeSpec,
    /// The prompt grows no longer than this; the oldest turns are cut off, and with them the
    /// shared prefix. Absent: no limit.
    pub max_context: Option<u32>,
}

/// What policies are told about output lengths: `truth * exp(error * N(0,1))`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictorSpec {
    /// Standard deviation of the logarithm of predicted over true length; 0 is an oracle.
    pub error: f64,
}

/// Requests from a file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// Its format.
    pub format: TraceFormat,
    /// The file, relative to the scenario file, or to the traces folder (`--traces DIR`,
    /// `WINDTUNNEL_TRACES`); `.gz` and `.zst` are unpacked.
    pub file: String,
    /// A second file that some formats need: token PDFs for `servegen`.
    pub tokens_file: Option<String>,
    /// Class of service of all requests; `default` if absent.
    pub class: Option<String>,
    /// Use only what lies between these times of the trace.
    #[serde(default)]
    pub slice: SliceSpec,
    /// Keep each request (or conversation) with this probability.
    pub thin: Option<f64>,
    /// Play so many copies at once, each shifted and with its own prefixes.
    #[serde(default)]
    pub replicate: Option<ReplicateSpec>,
    /// Play so many times faster.
    pub speed_up: Option<f64>,
    /// Spread arrivals evenly over the grid that their stamps were rounded to.
    pub jitter: Option<Span>,
    /// Conversations: replay the recorded times of calls instead of waiting for answers.
    #[serde(default)]
    pub open_loop: bool,
    /// When conversations without absolute times begin: Poisson at this rate.
    pub session_rate: Option<Rate>,
}

/// A part of a trace.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SliceSpec {
    /// Begin, since the trace's begin.
    pub from: Option<Span>,
    /// End, since the trace's begin.
    pub to: Option<Span>,
    /// First so many requests or conversations.
    pub first: Option<u64>,
}

/// Copies of a trace.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicateSpec {
    /// How many, the original included.
    pub copies: u32,
    /// Each copy is later than the one before by this much.
    pub shift: Span,
}

/// Formats of traces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// Mooncake: JSON lines with `timestamp`, lengths and chained `hash_ids` of 512 tokens.
    Mooncake,
    /// Azure LLM inference 2023 and 2024: CSV with `TIMESTAMP,ContextTokens,GeneratedTokens`.
    Azure,
    /// BurstGPT: CSV with `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.
    Burstgpt,
    /// ServeGen: rates per client and window, with token PDFs in `tokens_file`; requests are drawn.
    Servegen,
    /// Coding-agent sessions with nested sub-agents: JSON lines, one session each.
    AgenticCoding,
    /// VTC arena: CSV with `req_id,adapter,prompt_len,output_len,req_time_s`.
    Vtc,
    /// Windtunnel's own `requests.csv`.
    Native,
}
