//! Forecasts of how many requests will come, learned from those that came.

use super::Seen;
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::scaling::{ScalingPolicySpec, ScalingSpec};

/// Orders what a forecast says will be needed.
#[derive(Debug)]
pub(super) struct Predictive {
    forecast: Forecast,
    period: f64,
    /// Provisioning, in looks.
    lead: f64,
    per_replica: f64,
    work_off: Option<f64>,
    tolerance: f64,
    /// Requests up to the last look.
    counted: u64,
}

impl Predictive {
    pub(super) fn new(spec: &ScalingSpec) -> Self {
        let period = spec.period.0.as_secs_f64();
        let mut new = Self {
            forecast: Forecast::new(Holt::new(1.0, 0.0), None),
            period,
            lead: spec.provisioning.0.as_secs_f64() / period,
            per_replica: 1.0,
            work_off: None,
            tolerance: spec.tolerance,
            counted: 0,
        };
        if let ScalingPolicySpec::Predictive {
            per_replica,
            level,
            trend,
            season,
            seasonal,
            work_off,
        } = spec.policy
        {
            let looks = |span: SimDuration| (span.as_secs_f64() / period).round().max(1.0) as usize;
            let season = season.map(|span| Season::new(looks(span.0), seasonal));
            new.forecast = Forecast::new(Holt::new(level, trend), season);
            new.per_replica = per_replica.0;
            new.work_off = work_off.map(|span| span.0.as_secs_f64());
        }
        new
    }

    /// How many replicas are needed when an order placed now is ready, and no fewer than now.
    pub(super) fn wants(&mut self, seen: &Seen<'_>) -> u32 {
        let came = (seen.arrivals - self.counted) as f64 / self.period;
        self.counted = seen.arrivals;
        self.forecast.see(came);
        let rate = self.forecast.ahead(0.0).max(self.forecast.ahead(self.lead));
        let backlog = self.work_off.map_or(0.0, |s| seen.waiting as f64 / s);
        let needed = (rate + backlog) / self.per_replica;
        let ratio = needed / f64::from(seen.ordered);
        if (ratio - 1.0).abs() <= self.tolerance {
            return seen.ordered;
        }
        needed.ceil() as u32
    }
}

/// Holt's linear trend: an exponentially smoothed level, and an exponentially smoothed change of it
/// (Holt 1957; Hyndman and Athanasopoulos, "Forecasting", section 8.2).
#[derive(Clone, Debug)]
pub(super) struct Holt {
    level_weight: f64,
    trend_weight: f64,
    level: Option<f64>,
    trend: f64,
}

impl Holt {
    pub(super) const fn new(level_weight: f64, trend_weight: f64) -> Self {
        Self {
            level_weight,
            trend_weight,
            level: None,
            trend: 0.0,
        }
    }

    /// The next value of the series.
    pub(super) fn see(&mut self, value: f64) {
        let Some(before) = self.level else {
            self.level = Some(value);
            return;
        };
        let (a, b) = (self.level_weight, self.trend_weight);
        let level = a * value + (1.0 - a) * (before + self.trend);
        self.trend = b * (level - before) + (1.0 - b) * self.trend;
        self.level = Some(level);
    }

    /// What it will be so many values after the last one.
    pub(super) fn ahead(&self, values: f64) -> f64 {
        self.level.unwrap_or(0.0) + values * self.trend
    }
}

/// What repeats itself.
#[derive(Clone, Debug)]
pub(super) struct Season {
    length: usize,
    weight: f64,
    /// By phase, as far as it has been seen.
    profile: Vec<f64>,
}

impl Season {
    pub(super) const fn new(length: usize, weight: f64) -> Self {
        Self {
            length,
            weight,
            profile: Vec::new(),
        }
    }
}

/// A trend, and what repeats itself.
#[derive(Clone, Debug)]
pub(super) struct Forecast {
    holt: Holt,
    season: Option<Season>,
    /// Values seen.
    seen: usize,
}

impl Forecast {
    pub(super) const fn new(holt: Holt, season: Option<Season>) -> Self {
        Self {
            holt,
            season,
            seen: 0,
        }
    }

    /// The rate since the last look.
    pub(super) fn see(&mut self, rate: f64) {
        let number = self.seen;
        self.seen += 1;
        let Some(season) = &mut self.season else {
            return self.holt.see(rate);
        };
        if season.profile.len() < season.length {
            season.profile.push(rate);
            self.holt.see(rate);
            return;
        }
        if number == season.length {
            // From now on the trend is that of what the profile does not explain.
            self.holt = Holt::new(self.holt.level_weight, self.holt.trend_weight);
        }
        let usual = &mut season.profile[number % season.length];
        self.holt.see(rate - *usual);
        // What the level has taken up is no part of the profile: it would count twice.
        *usual += season.weight * (rate - self.holt.ahead(0.0) - *usual);
    }

    /// The rate so many looks from now; never below zero.
    pub(super) fn ahead(&self, looks: f64) -> f64 {
        // The last rate was that of half a look ago, on the average.
        let trend = self.holt.ahead(looks + 0.5);
        let usual = self.season.as_ref().map_or(0.0, |season| {
            if self.seen <= season.length {
                return 0.0;
            }
            let then = self.seen + looks as usize;
            season.profile[then % season.length]
        });
        (usual + trend).max(0.0)
    }
}
