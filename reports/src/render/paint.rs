//! The few kinds of drawings that reports need, on top of plotters.

use super::number::{digits, figure};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A page.
pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Whether it could be drawn.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A line and what it is.
pub(super) struct Line {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How many lines can be told apart.
pub(super) const COLOURS: usize = PALETTE.len();

/// Okabe and Ito's colours, which colour-blind people can tell apart, without the faint ones.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Stands for the colour of the page's text; replaced in the finished drawing.
const INK: RGBColor = RGBColor(1, 2, 3);
/// What went wrong, behind the lines.
const DISTURBED: RGBColor = RGBColor(213, 94, 0);
const INK_CODE: &str = "#010203";

const LEGEND: i32 = 26;
const SMALL: u32 = 12;
/// A character of a label is about this wide.
const CHARACTER: i32 = 7;

/// Text and axes in the colour of the page around them.
pub(super) fn in_page_colours(svg: &str) -> String {
    svg.replace(INK_CODE, "currentColor")
}

fn text<'a>() -> TextStyle<'a> {
    ("sans-serif", SMALL).into_font().color(&INK)
}

fn colour(i: usize) -> RGBColor {
    PALETTE[i % PALETTE.len()]
}

/// A strip that names the lines; returns what is below it.
fn legend<'a>(
    canvas: &Canvas<'a>,
    lines: &[Line],
) -> Result<Canvas<'a>, Box<dyn std::error::Error>> {
    let (strip, rest) = canvas.split_vertically(LEGEND);
    let mut x = 60;
    for (i, line) in lines.iter().enumerate() {
        let swatch = [(x, 9), (x + 14, 13)];
        strip.draw(&Rectangle::new(swatch, colour(i).filled()))?;
        let style = text().pos(Pos::new(HPos::Left, VPos::Center));
        strip.draw(&Text::new(line.label.clone(), (x + 19, 11), style))?;
        x += 36 + CHARACTER * line.label.chars().count() as i32;
    }
    Ok(rest)
}

fn draw_lines<'a, DB, X, Y>(
    chart: &mut ChartContext<'a, DB, Cartesian2d<X, Y>>,
    lines: &[Line],
) -> Drawn
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (i, line) in lines.iter().enumerate() {
        let style = colour(i).stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
    }
    Ok(())
}

/// A range wider than this gets a logarithmic axis.
const WIDE: f64 = 20.0;

/// Distribution functions over an axis of ms, logarithmic if they reach far.
pub(super) fn cdf(canvas: &Canvas<'_>, lines: &[Line]) -> Drawn {
    let xs = || lines.iter().flat_map(|l| &l.points).map(|p| p.0.max(1e-6));
    let least = xs().fold(f64::INFINITY, f64::min);
    let most = xs().fold(0.0, f64::max).max(least * 1.01);
    let below = legend(canvas, lines)?;
    if most / least > WIDE {
        cdf_over(&below, (least * 0.98..most * 1.02).log_scale(), lines)
    } else {
        let margin = (most - least) * 0.02;
        cdf_over(&below, least - margin..most + margin, lines)
    }
}

fn cdf_over<X>(canvas: &Canvas<'_>, xs: X, lines: &[Line]) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(canvas)
        .margin_right(16)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(xs, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.13))
        .axis_style(INK.mix(0.45))
        .label_style(text())
        .x_labels(6)
        .x_label_formatter(&|ms| figure(*ms, "ms"))
        .y_labels(6)
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .draw()?;
    draw_lines(&mut chart, lines)
}

/// Predicted over measured, and the diagonal on which they agree; logarithmic if values reach far.
pub(super) fn scatter(canvas: &Canvas<'_>, points: &[(f64, f64)], unit: &str) -> Drawn {
    let values = || points.iter().flat_map(|p| [p.0, p.1]);
    let positive = || values().filter(|&v| v > 0.0);
    let least = positive().fold(f64::INFINITY, f64::min).min(1e12);
    let most = values().fold(0.0, f64::max).max(least * 1.01);
    let labels = [Line {
        label: format!("{} requests", super::number::count(points.len() as u64)),
        points: Vec::new(),
    }];
    let below = legend(canvas, &labels)?;
    if most / least > WIDE && values().all(|v| v > 0.0) {
        let axis = || (least * 0.9..most * 1.1).log_scale();
        scatter_over(
            &below,
            axis(),
            axis(),
            points,
            (least * 0.9, most * 1.1),
            unit,
        )
    } else {
        let axis = || 0.0..most * 1.05;
        scatter_over(&below, axis(), axis(), points, (0.0, most * 1.05), unit)
    }
}

fn scatter_over<X>(
    canvas: &Canvas<'_>,
    xs: X,
    ys: X,
    points: &[(f64, f64)],
    (least, most): (f64, f64),
    unit: &str,
) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(canvas)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.13))
        .axis_style(INK.mix(0.45))
        .label_style(text())
        .axis_desc_style(text())
        .x_desc("measured")
        .y_desc("predicted")
        .x_labels(6)
        .x_label_formatter(&|v| figure(*v, unit))
        .y_labels(6)
        .y_label_formatter(&|v| figure(*v, unit))
        .draw()?;
    let diagonal = [(least, least), (most, most)];
    chart.draw_series(LineSeries::new(diagonal, INK.mix(0.6).stroke_width(1)))?;
    let dots = points
        .iter()
        .map(|&p| Circle::new(p, 2, colour(0).mix(0.55).filled()));
    chart.draw_series(dots)?;
    Ok(())
}

/// Stretches of time that stand out, s.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Shades {
    /// From the begin until here nothing is measured.
    pub(super) warm_up: f64,
    /// When something disturbed the run.
    pub(super) disturbed: Option<(f64, f64)>,
}

/// Lines over seconds; stretches that stand out are shaded.
pub(super) fn over_time(canvas: &Canvas<'_>, lines: &[Line], shades: Shades, share: bool) -> Drawn {
    let points = || lines.iter().flat_map(|l| &l.points);
    let end = points().map(|p| p.0).fold(1e-9, f64::max);
    let top = if share {
        1.0
    } else {
        points().map(|p| p.1).fold(1.0, f64::max) * 1.05
    };
    let below = legend(canvas, lines)?;
    let mut chart = ChartBuilder::on(&below)
        .margin_right(16)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let mut shade = |from: f64, to: f64, colour: RGBAColor| -> Drawn {
        if to.min(end) > from {
            let area = [(from, 0.0), (to.min(end), top)];
            chart.draw_series([Rectangle::new(area, colour.filled())])?;
        }
        Ok(())
    };
    shade(0.0, shades.warm_up, INK.mix(0.07))?;
    if let Some((from, to)) = shades.disturbed {
        shade(from, to, DISTURBED.mix(0.12))?;
    }
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.13))
        .axis_style(INK.mix(0.45))
        .label_style(text())
        .x_labels(7)
        .x_label_formatter(&|s| format!("{} s", plain(*s)))
        .y_labels(6)
        .y_label_formatter(&|v| {
            if share {
                format!("{:.0} %", v * 100.0)
            } else {
                plain(*v)
            }
        })
        .draw()?;
    draw_lines(&mut chart, lines)
}

/// An axis label: no more decimals than it needs.
fn plain(value: f64) -> String {
    match value.abs() {
        x if x >= 1e9 => format!("{} G", short(value / 1e9)),
        x if x >= 1e6 => format!("{} M", short(value / 1e6)),
        x if x >= 1e4 => format!("{} k", short(value / 1e3)),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let rounded = (value * 1e3).round() / 1e3;
    format!("{rounded}")
}

/// Upright bars, one per entry, with a line at their mean.
pub(super) fn columns(canvas: &Canvas<'_>, bars: &[(String, f64)]) -> Drawn {
    let top = bars.iter().map(|b| b.1).fold(1.0, f64::max) * 1.08;
    let n = bars.len() as f64;
    let mean = bars.iter().map(|b| b.1).sum::<f64>() / n;
    let (_, below) = canvas.split_vertically(8);
    let mut chart = ChartBuilder::on(&below)
        .margin_right(16)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.5..n - 0.5, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.13))
        .axis_style(INK.mix(0.45))
        .label_style(text())
        .x_labels(bars.len().min(16))
        .x_label_formatter(&|x| {
            // Only whole places have a bar.
            let at = x.round();
            let whole = (x - at).abs() < 1e-6 && at >= 0.0;
            bars.get(at as usize)
                .filter(|_| whole)
                .map_or(String::new(), |b| b.0.clone())
        })
        .y_labels(6)
        .y_label_formatter(&|v| plain(*v))
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(i, (_, value))| {
        let x = i as f64;
        Rectangle::new([(x - 0.36, 0.0), (x + 0.36, *value)], colour(0).filled())
    }))?;
    let line = [(-0.5, mean), (n - 0.5, mean)];
    chart.draw_series(LineSeries::new(line, INK.mix(0.6).stroke_width(1)))?;
    Ok(())
}

/// Lying bars with their names and figures, longest bar as wide as the page allows.
pub(super) fn bars(canvas: &Canvas<'_>, bars: &[(String, f64)], unit: &str) -> Drawn {
    let total: f64 = bars.iter().map(|b| b.1).sum();
    let most = bars.iter().map(|b| b.1).fold(0.0, f64::max);
    let (width, height) = canvas.dim_in_pixel();
    let row = (height as i32 - 16) / bars.len().max(1) as i32;
    let row = row.min(52);
    let room = f64::from(width as i32 - 110 - 150);
    for (i, (name, value)) in bars.iter().enumerate() {
        let middle = 8 + row * i as i32 + row / 2;
        let half = (row * 3 / 10).max(2);
        let length = (value / most.max(f64::MIN_POSITIVE) * room).round() as i32;
        let right = text().pos(Pos::new(HPos::Right, VPos::Center));
        canvas.draw(&Text::new(name.clone(), (100, middle), right))?;
        let bar = [(110, middle - half), (110 + length.max(1), middle + half)];
        canvas.draw(&Rectangle::new(bar, colour(0).filled()))?;
        let share = value / total * 100.0;
        let label = format!("{}  ({} %)", figure(*value, unit), digits(share));
        let left = text().pos(Pos::new(HPos::Left, VPos::Center));
        canvas.draw(&Text::new(label, (118 + length, middle), left))?;
    }
    Ok(())
}
