//! Distributions with a density, and mixtures of them.

use super::{SampleError, require, require_positive};
use crate::rng::Rng;

/// Exponential.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Exponential {
    mean: f64,
}

impl Exponential {
    /// By its mean.
    ///
    /// # Errors
    /// If the mean is not positive.
    pub fn new(mean: f64) -> Result<Self, SampleError> {
        require_positive("exponential", "mean", mean)?;
        Ok(Self { mean })
    }

    /// One draw, by inversion: one uniform each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        -self.mean * libm::log(rng.f64_open())
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance.
    pub const fn variance(&self) -> f64 {
        self.mean * self.mean
    }
}

/// Normal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Normal {
    mean: f64,
    sigma: f64,
}

impl Normal {
    /// By mean and standard deviation.
    ///
    /// # Errors
    /// If the mean is not finite, or `sigma` is negative.
    pub fn new(mean: f64, sigma: f64) -> Result<Self, SampleError> {
        require(true, "normal", "mean", "finite", mean)?;
        require(sigma >= 0.0, "normal", "sigma", "at least zero", sigma)?;
        Ok(Self { mean, sigma })
    }

    /// One draw, by inversion: one uniform each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        self.mean + self.sigma * standard_normal(rng)
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance.
    pub const fn variance(&self) -> f64 {
        self.sigma * self.sigma
    }
}

/// A draw with mean 0 and variance 1, by inversion: one uniform.
#[inline]
pub fn standard_normal(rng: &mut Rng) -> f64 {
    // The middles of 2^52 equal parts of (0, 1), so that neither end is ever reached.
    let p = ((rng.next_u64() >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64);
    normal_quantile(p)
}

/// The value below which a standard normal variable lies with probability `p` in (0, 1), to
/// about 16 digits. Algorithm AS 241, PPND16 (Wichura, Applied Statistics 37, 1988).
#[inline]
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 8] = [
        3.387_132_872_796_366_5,
        1.331_416_678_917_843_8e2,
        1.971_590_950_306_551_3e3,
        1.373_169_376_550_946e4,
        4.592_195_393_154_987e4,
        6.726_577_092_700_87e4,
        3.343_057_558_358_813e4,
        2.509_080_928_730_122_7e3,
    ];
    const B: [f64; 8] = [
        1.0,
        4.231_333_070_160_091e1,
        6.871_870_074_920_579e2,
        5.394_196_021_424_751e3,
        2.121_379_430_158_659_7e4,
        3.930_789_580_009_271e4,
        2.872_908_573_572_194_3e4,
        5.226_495_278_852_854e3,
    ];
    const C: [f64; 8] = [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        2.417_807_251_774_506e-1,
        2.272_384_498_926_918_4e-2,
        7.745_450_142_783_414e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        6.897_673_349_851e-1,
        1.481_039_764_274_800_8e-1,
        1.519_866_656_361_645_7e-2,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ];
    const E: [f64; 8] = [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        2.965_605_718_285_048_7e-1,
        2.653_218_952_657_612_4e-2,
        1.242_660_947_388_078_4e-3,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        5.998_322_065_558_88e-1,
        1.369_298_809_227_358e-1,
        1.487_536_129_085_061_5e-2,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ];
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * polynomial(&A, r) / polynomial(&B, r);
    }
    let r = (-libm::log(if q < 0.0 { p } else { 1.0 - p })).sqrt();
    let x = if r <= 5.0 {
        polynomial(&C, r - 1.6) / polynomial(&D, r - 1.6)
    } else {
        polynomial(&E, r - 5.0) / polynomial(&F, r - 5.0)
    };
    if q < 0.0 { -x } else { x }
}

#[inline]
fn polynomial(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// Lognormal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lognormal {
    mean: f64,
    mu: f64,
    sigma: f64,
}

impl Lognormal {
    /// By its mean (not its median) and the standard deviation of its natural logarithm.
    ///
    /// # Errors
    /// If the mean is not positive, or `sigma` is negative.
    pub fn new(mean: f64, sigma: f64) -> Result<Self, SampleError> {
        require_positive("lognormal", "mean", mean)?;
        require(sigma >= 0.0, "lognormal", "sigma", "at least zero", sigma)?;
        Ok(Self {
            mean,
            mu: libm::log(mean) - 0.5 * sigma * sigma,
            sigma,
        })
    }

    /// One draw: one uniform each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        libm::exp(self.mu + self.sigma * standard_normal(rng))
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance.
    pub fn variance(&self) -> f64 {
        self.mean * self.mean * libm::expm1(self.sigma * self.sigma)
    }
}

/// Gamma.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gamma {
    shape: f64,
    scale: f64,
    /// Of the shape that is drawn, one more than `shape` if that is below one.
    d: f64,
    c: f64,
}

impl Gamma {
    /// By shape and scale; the mean is their product, the coefficient of variation
    /// `1 / sqrt(shape)`.
    ///
    /// # Errors
    /// If either is not positive.
    pub fn new(shape: f64, scale: f64) -> Result<Self, SampleError> {
        require_positive("gamma", "shape", shape)?;
        require_positive("gamma", "scale", scale)?;
        let drawn = if shape < 1.0 { shape + 1.0 } else { shape };
        let d = drawn - 1.0 / 3.0;
        Ok(Self {
            shape,
            scale,
            d,
            c: 1.0 / (9.0 * d).sqrt(),
        })
    }

    /// By shape and mean.
    ///
    /// # Errors
    /// If either is not positive.
    pub fn with_mean(shape: f64, mean: f64) -> Result<Self, SampleError> {
        require_positive("gamma", "shape", shape)?;
        require_positive("gamma", "mean", mean)?;
        Self::new(shape, mean / shape)
    }

    /// One draw, by the method of Marsaglia and Tsang (ACM TOMS 26, 2000), with their boost by
    /// a power of a uniform for shapes below one.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        let standard = loop {
            let x = standard_normal(rng);
            let v = 1.0 + self.c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let log_u = libm::log(rng.f64_open());
            if log_u < 0.5 * x * x + self.d * (1.0 - v + libm::log(v)) {
                break self.d * v;
            }
        };
        if self.shape >= 1.0 {
            return self.scale * standard;
        }
        self.scale * standard * libm::exp(libm::log(rng.f64_open()) / self.shape)
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.shape * self.scale
    }

    /// The variance.
    pub const fn variance(&self) -> f64 {
        self.shape * self.scale * self.scale
    }
}

/// Weibull.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weibull {
    shape: f64,
    scale: f64,
}

impl Weibull {
    /// By shape and scale (the value that is exceeded with probability 1/e). Shape 1 is
    /// exponential, less has a heavier tail.
    ///
    /// # Errors
    /// If either is not positive.
    pub fn new(shape: f64, scale: f64) -> Result<Self, SampleError> {
        require_positive("weibull", "shape", shape)?;
        require_positive("weibull", "scale", scale)?;
        Ok(Self { shape, scale })
    }

    /// By shape and mean.
    ///
    /// # Errors
    /// If either is not positive, or the shape is so small that the scale vanishes.
    pub fn with_mean(shape: f64, mean: f64) -> Result<Self, SampleError> {
        require_positive("weibull", "shape", shape)?;
        require_positive("weibull", "mean", mean)?;
        Self::new(shape, mean / libm::tgamma(1.0 + 1.0 / shape))
    }

    /// One draw, by inversion: one uniform each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        self.scale * libm::pow(-libm::log(rng.f64_open()), 1.0 / self.shape)
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.scale * libm::tgamma(1.0 + 1.0 / self.shape)
    }

    /// The variance.
    pub fn variance(&self) -> f64 {
        let second = self.scale * self.scale * libm::tgamma(1.0 + 2.0 / self.shape);
        second - self.mean() * self.mean()
    }
}

/// Hyperexponential of two phases with balanced means: each phase brings half of the mean
/// (Whitt, "Approximating a point process by a renewal process", Oper. Res. 30, 1982).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hyperexponential {
    /// Probability of the short phase.
    p_short: f64,
    short: f64,
    long: f64,
}

impl Hyperexponential {
    /// By mean and squared coefficient of variation; 1 is exponential.
    ///
    /// # Errors
    /// If the mean is not positive, or `cv2` is below 1.
    pub fn new(mean: f64, cv2: f64) -> Result<Self, SampleError> {
        require_positive("hyperexponential", "mean", mean)?;
        require(cv2 >= 1.0, "hyperexponential", "cv2", "at least 1", cv2)?;
        let p_short = 0.5 * (1.0 + ((cv2 - 1.0) / (cv2 + 1.0)).sqrt());
        Ok(Self {
            p_short,
            short: mean / (2.0 * p_short),
            long: mean / (2.0 * (1.0 - p_short)),
        })
    }

    /// One draw: two uniforms each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        let mean = if rng.chance(self.p_short) {
            self.short
        } else {
            self.long
        };
        -mean * libm::log(rng.f64_open())
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.p_short * self.short + (1.0 - self.p_short) * self.long
    }

    /// The variance.
    pub const fn variance(&self) -> f64 {
        let second =
            self.p_short * self.short * self.short + (1.0 - self.p_short) * self.long * self.long;
        2.0 * second - self.mean() * self.mean()
    }
}

/// One of two values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TwoPoint {
    usual: f64,
    rare: f64,
    p_rare: f64,
}

impl TwoPoint {
    /// `rare` with probability `p_rare`, else `usual`.
    ///
    /// # Errors
    /// If a value is not finite, or `p_rare` is not a probability.
    pub fn new(usual: f64, rare: f64, p_rare: f64) -> Result<Self, SampleError> {
        require(true, "two-point", "usual", "finite", usual)?;
        require(true, "two-point", "rare", "finite", rare)?;
        let probability = (0.0..=1.0).contains(&p_rare);
        require(probability, "two-point", "p_rare", "from 0 to 1", p_rare)?;
        Ok(Self {
            usual,
            rare,
            p_rare,
        })
    }

    /// One draw: one uniform each.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        if rng.chance(self.p_rare) {
            self.rare
        } else {
            self.usual
        }
    }

    /// The mean.
    pub const fn mean(&self) -> f64 {
        self.usual + self.p_rare * (self.rare - self.usual)
    }

    /// The variance.
    pub const fn variance(&self) -> f64 {
        let distance = self.rare - self.usual;
        self.p_rare * (1.0 - self.p_rare) * distance * distance
    }
}
