//! Plots, as SVG. The one place that knows the plotting library.

use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Told apart also by those who see red and green alike (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(240, 228, 66),
];

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Latency by quantile: how many of a hundred, a thousand, ten thousand commands took longer.
pub fn latencies(path: &Path, title: &str, series: &[(String, Histogram<u64>)]) -> anyhow::Result<()> {
    const WIDTH: u32 = 840;
    let root = canvas(path, (WIDTH, 400))?;
    // By nines: 0 is every command, 1 the slowest tenth, 2 the slowest hundredth.
    let points = |times: &Histogram<u64>| -> Vec<(f64, f64)> {
        let most = (times.len().max(2) as f64).log10().min(5.0);
        let at = |step: u32| {
            let nines = most * f64::from(step) / 100.0;
            (nines, (times.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1000.0).max(1.0))
        };
        (0..=100).map(at).collect()
    };
    let curves: Vec<_> = series.iter().map(|(name, times)| (name, points(times))).collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let (nines, highest) = all().fold((1.0, 10.0), |most: (f64, f64), at| (most.0.max(at.0), most.1.max(at.1)));
    let lowest = all().map(|at| at.1).fold(highest, f64::min);
    let (plane, legend) = root.split_horizontally(WIDTH - 180);
    let mut chart = ChartBuilder::on(&plane)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..nines, (lowest * 0.8..highest * 1.2).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("quantile")
        .y_desc("latency, µs")
        .x_labels(nines as usize + 1)
        .x_label_formatter(&|nines| quantile_name(*nines))
        .y_label_formatter(&|latency| short(*latency))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        let y = 50 + 20 * i32::try_from(index)?;
        legend.draw(&PathElement::new([(0, y), (16, y)], colour.stroke_width(3)))?;
        legend.draw(&Text::new(name.as_str(), (22, y - 7), (FONT, 12).into_font()))?;
    }
    root.present().with_context(|| format!("writing {}", path.display()))
}

fn quantile_name(nines: f64) -> String {
    match nines {
        0.0 => "all".to_owned(),
        _ => {
            let digits = nines.ceil().max(1.0) as usize - 1;
            format!("p{:.digits$}", (1.0 - 10f64.powf(-nines)) * 100.0)
        }
    }
}

/// Horizontal bars in groups: one group of `groups` for each circumstance, with a bar for each of `names`. Where there is
/// no value there is no bar.
pub fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    names: &[String],
    groups: &[(String, Vec<Option<f64>>)],
) -> anyhow::Result<()> {
    const BAR: i32 = 15;
    const HEAD: i32 = 44;
    const GROUP_HEAD: i32 = 26;
    const LABELS: i32 = 190;
    const WIDTH: i32 = 760;
    let bar_count: usize = groups.iter().map(|(_, values)| values.iter().flatten().count()).sum();
    let height = HEAD + GROUP_HEAD * i32::try_from(groups.len())? + BAR * i32::try_from(bar_count)? + 16;
    let root = canvas(path, (u32::try_from(WIDTH)?, u32::try_from(height)?))?;
    let (head, text) = ((FONT, 17).into_font(), (FONT, 12).into_font());
    root.draw(&Text::new(format!("{title} ({unit})"), (12, 12), head))?;
    let mut y = HEAD;
    for (group, values) in groups {
        root.draw(&Text::new(group.clone(), (12, y + 6), (FONT, 13).into_font().style(FontStyle::Bold)))?;
        y += GROUP_HEAD;
        // Each group has a scale of its own: a depth of 64 would vanish beside a depth of 1.
        let highest = values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (index, (name, value)) in names.iter().zip(values).enumerate() {
            let Some(value) = value else { continue };
            let length = (value / highest * f64::from(WIDTH - LABELS - 90)) as i32;
            let bar = [(LABELS, y + 2), (LABELS + length.max(1), y + BAR - 2)];
            root.draw(&Text::new(name.clone(), (20, y + 1), text.clone()))?;
            root.draw(&Rectangle::new(bar, COLOURS[index % COLOURS.len()].filled()))?;
            root.draw(&Text::new(short(*value), (LABELS + length + 6, y + 1), text.clone()))?;
            y += BAR;
        }
    }
    root.present().with_context(|| format!("writing {}", path.display()))
}

/// Three significant digits, which is more than two runs agree on.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let Some(thousands) = text.len().checked_sub(3).filter(|at| *at > 0 && !text.contains(['.', '-'])) else {
        return text;
    };
    let mut grouped = text.clone();
    let mut at = thousands;
    loop {
        grouped.insert(at, ',');
        match at.checked_sub(3).filter(|at| *at > 0) {
            Some(next) => at = next,
            None => return grouped,
        }
    }
}

fn canvas(path: &Path, size: (u32, u32)) -> anyhow::Result<Area<'_>> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn numbers_have_three_digits_and_their_thousands_apart() {
        for (value, text) in [
            (0.1234, "0.123"),
            (1.239, "1.24"),
            (56.78, "56.8"),
            (567.8, "568"),
            (1234.0, "1,234"),
            (1_234_567.0, "1,234,567"),
            (100_000.0, "100,000"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn bars_are_written_for_the_values_that_there_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bars.svg");
        let names = ["one".to_owned(), "other".to_owned()];
        let groups =
            [("depth 1".to_owned(), vec![Some(1.0), None]), ("depth 16".to_owned(), vec![Some(2.0), Some(3.0)])];
        bars(&path, "CPU", "µs", &names, &groups).expect("it is drawn");
        let svg = fs::read_to_string(&path).expect("it is written");
        assert_eq!(svg.matches("other").count(), 1);
        assert_eq!(svg.matches("depth").count(), 2);
    }

    #[test]
    fn latencies_are_drawn_up_to_the_nines_that_were_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latencies.svg");
        let mut times = Histogram::new(3).expect("digits in range");
        (1..=1000u64).for_each(|value| times.record(value * 1000).expect("in range"));
        latencies(&path, "a run", &[("server".to_owned(), times)]).expect("it is drawn");
        let svg = fs::read_to_string(&path).expect("it is written");
        assert!(svg.contains("p99") && svg.contains("server"));
    }
}
