//! A budget over time, as an SVG of its own: medians as a line, the spread of the samples as bars.

use std::fmt::Write as _;

use super::history::{Entry, Figure};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 280.0;
/// Room for the numbers on the left and the commits below.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
const TICK_COUNT: u32 = 4;

/// More points than this cannot be told apart; the latest are shown.
const POINT_COUNT_MAX: usize = 40;

/// Draws one budget. Entries that did not measure it are left out.
pub(super) fn draw(name: &str, entries: &[&Entry]) -> String {
    let figure_of = |entry: &&Entry| {
        let figure = entry.figures.iter().find(|figure| figure.name == name)?;
        Some((entry.commit.clone(), figure.clone()))
    };
    let mut points: Vec<(String, Figure)> = entries.iter().filter_map(figure_of).collect();
    points.drain(..points.len().saturating_sub(POINT_COUNT_MAX));
    let Some((_, latest)) = points.last() else { return String::new() };

    let scale = Scale::of(&points);
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}, {} (budget: {})</text>",
        name.replace('_', " "),
        latest.unit,
        latest.budget
    );
    for tick in 0..=TICK_COUNT {
        let value = scale.maximum * f64::from(tick) / f64::from(TICK_COUNT);
        let y = scale.y(value);
        rule(&mut svg, y, "#dddddd", (LEFT - 8.0, y + 4.0), &format!("{value:.2}"));
    }
    if let Some(goal) = latest.goal.filter(|goal| *goal <= scale.maximum) {
        let y = scale.y(goal);
        rule(&mut svg, y, "#2a8a4a", (WIDTH - RIGHT, y - 4.0), "goal");
    }
    let mut line = String::new();
    for (index, (commit, figure)) in points.iter().enumerate() {
        let x = scale.x(index);
        let sorted = figure.sorted();
        let (low, high) = (scale.y(sorted[0]), scale.y(sorted[sorted.len() - 1]));
        let median = scale.y(figure.median());
        let _ = write!(line, "{x:.1},{median:.1} ");
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#9db8dd\" stroke-width=\"5\"/>\n\
             <circle cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"3.5\" fill=\"#1f4e9c\">\
             <title>{commit}: {:.2} {}</title></circle>",
            figure.median(),
            figure.unit
        );
    }
    for (index, anchor) in [(0, "start"), (points.len() - 1, "end")] {
        let (x, y) = (scale.x(index), HEIGHT - 15.0);
        let commit = &points[index].0;
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{commit}</text>");
        if points.len() == 1 {
            break;
        }
    }
    let _ =
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f4e9c\"/>", line.trim());
    svg + "</svg>\n"
}

/// A horizontal line, and a word that ends at a place.
fn rule(svg: &mut String, line_y: f64, colour: &str, (word_x, word_y): (f64, f64), word: &str) {
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {line_y:.1}H{}\" stroke=\"{colour}\"/>\n\
         <text x=\"{word_x}\" y=\"{word_y:.1}\" text-anchor=\"end\" fill=\"#555555\">{word}</text>",
        WIDTH - RIGHT
    );
}

/// From values to places on the picture. Values begin at zero, so that changes are not magnified.
struct Scale {
    maximum: f64,
    point_count: usize,
}

impl Scale {
    fn of(points: &[(String, Figure)]) -> Scale {
        let samples = points.iter().flat_map(|(_, figure)| &figure.samples);
        let maximum = samples.fold(0.0, |maximum: f64, sample| maximum.max(*sample));
        Scale {
            maximum: if maximum > 0.0 { maximum * 1.1 } else { 1.0 },
            point_count: points.len(),
        }
    }

    fn x(&self, index: usize) -> f64 {
        let steps = self.point_count.saturating_sub(1).max(1) as f64;
        LEFT + 10.0 + (WIDTH - LEFT - RIGHT - 20.0) * index as f64 / steps
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.maximum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_that_has_the_figure_is_a_point() {
        let figure = |sample| Figure {
            name: "merge".into(),
            unit: "ms".into(),
            budget: 10.0,
            goal: Some(3.0),
            samples: vec![sample, sample * 2.0, sample * 3.0],
        };
        let entry = |commit: &str, figures| Entry {
            commit: commit.into(),
            date: "2026-01-01".into(),
            machine: "x".into(),
            figures,
        };
        let first = entry("aaa", vec![figure(1.0)]);
        let without = entry("bbb", Vec::new());
        let last = entry("ccc", vec![figure(2.0)]);
        let svg = draw("merge", &[&first, &without, &last]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("ccc: 4.00 ms") && svg.contains(">goal<") && !svg.contains("bbb"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(draw("absent", &[&first]), "");
    }
}
