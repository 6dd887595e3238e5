//! The kernels: their text, and a handle of each.

use super::layout::{self, PAGE};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use windtunnel_cuda::{CudaError, Device, Kernel, Numbers, Program};

macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// Names of the kernels of every model.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// The loaded kernels.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Kernels {
            $(pub(super) $name: Kernel,)*
            /// Products of at most 8 and 16 rows: plain, to 32-bit floats, added; for 16-bit models.
            pub(super) skinny: Option<[[Kernel; 3]; 2]>,
            /// Products of at most 8 and 16 rows with gate and up, joined; for 16-bit models.
            pub(super) gated: Option<[Kernel; 2]>,
        }

        impl Kernels {
            fn from_loaded(loaded: &[Kernel]) -> Option<Self> {
                let mut all = loaded.iter();
                $(let $name = *all.next()?;)*
                let (skinny, gated) = match all.as_slice() {
                    [a, b, c, d, e, f, g, h] => (Some([[*a, *b, *c], [*d, *e, *f]]), Some([*g, *h])),
                    _ => (None, None),
                };
                Some(Self {
                    $($name,)*
                    skinny,
                    gated,
                })
            }
        }
    };
}

kernels![
    embed,
    rms_norm,
    rotate_append,
    swiglu,
    gather_rows,
    scatter_rows,
    turn_delta,
    convert_page,
    attention_decode,
    combine,
    attention_prefill,
    sample,
    risk_scan,
    fill,
    read_all,
    copy_all,
];

const SKINNY: [&str; 8] = [
    "skinny_8",
    "skinny_8_float",
    "skinny_8_add",
    "skinny_16",
    "skinny_16_float",
    "skinny_16_add",
    "gated_8",
    "gated_16",
];

const TEXT: [&str; 6] = [
    include_str!("kernels/common.cuh"),
    include_str!("kernels/rows.cu"),
    include_str!("kernels/pages.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/sampling.cu"),
    include_str!("kernels/matrix.cu"),
];

/// Checks that the kernels can run a model of these sizes.
pub(super) fn check(config: &ModelConfig) -> Result<(), ReferenceError> {
    let wrong = |field: &str, reason: String, remedy: &str| {
        Err(ReferenceError::Config {
            field: field.into(),
            reason,
            remedy: remedy.into(),
        })
    };
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let cpu = "run this model on the CPU";
    if config.head_dim != 64 && config.head_dim != 128 {
        let reason = format!(
            "the GPU kernels know heads of 64 and 128 numbers, not {}",
            config.head_dim
        );
        return wrong("head_dim", reason, cpu);
    }
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || heads / kv_heads > 16 {
        let reason = format!(
            "{heads} query heads over {kv_heads} key-value heads: the GPU kernels take a divisor, and at most 16 for one"
        );
        return wrong("num_key_value_heads", reason, cpu);
    }
    for (field, size) in [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
    ] {
        if size == 0 || !size.is_multiple_of(8) {
            return wrong(
                field,
                format!("{size} is no multiple of 8, which GPU memory wants"),
                cpu,
            );
        }
    }
    if config.vocab_size == 0 || config.vocab_size > 1 << 19 {
        let reason = format!(
            "the GPU samples from 1 to {} tokens, not {}",
            1 << 19,
            config.vocab_size
        );
        return wrong("vocab_size", reason, cpu);
    }
    Ok(())
}

/// The program for a model, and the names of its kernels.
pub(super) fn with_program<T>(
    config: &ModelConfig,
    numbers: Numbers,
    work: impl FnOnce(&Program<'_>) -> T,
) -> T {
    let mut names = NAMES.to_vec();
    let mut defines: Vec<(&'static str, String)> = [
        ("HIDDEN", config.hidden_size),
        ("FFN", config.intermediate_size),
        ("HEADS", config.num_attention_heads),
        ("KV_HEADS", config.num_key_value_heads),
        ("HEAD_DIM", config.head_dim),
        ("VOCAB", config.vocab_size),
        ("PAGE", PAGE),
        ("FORMAT_F16", layout::FORMAT_F16 as usize),
        ("FORMAT_FP8", layout::FORMAT_FP8 as usize),
        ("FORMAT_INT8", layout::FORMAT_INT8 as usize),
    ]
    .map(|(name, value)| (name, value.to_string()))
    .to_vec();
    match numbers {
        Numbers::F32 => defines.push(("REAL", "float".into())),
        Numbers::Bf16 => {
            defines.push(("REAL", "bf16".into()));
            defines.push(("BF16", "1".into()));
            names.extend(SKINNY);
        }
    }
    work(&Program {
        name: "windtunnel.cu",
        text: TEXT.concat(),
        defines,
        kernels: &names,
    })
}

/// Compiles and loads the kernels for a model.
pub(super) fn load(
    device: &Device,
    config: &ModelConfig,
    numbers: Numbers,
) -> Result<Kernels, CudaError> {
    let loaded = with_program(config, numbers, |program| device.load(program))?;
    Kernels::from_loaded(&loaded).ok_or_else(|| CudaError::Misuse {
        what: "a kernel was not loaded".into(),
    })
}
