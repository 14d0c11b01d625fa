//! Plots of the reports, as SVG.

use std::path::Path;

use anyhow::Context;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// A curve with its name in the legend.
pub struct Curve {
    /// Shown in the legend.
    pub name: String,
    /// Points, in the order they are joined.
    pub points: Vec<(f64, f64)>,
}

/// What stands at the axes.
pub struct Labels {
    /// Above the plot.
    pub title: String,
    /// Below.
    pub x: String,
    /// At the left.
    pub y: String,
}

const SIZE: (u32, u32) = (900, 560);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// Curves over a logarithmic rate, from `x_min` to 1; y from `y.0` to `y.1`.
pub fn rates(
    file: &Path,
    labels: &Labels,
    x_min: f64,
    y: (f64, f64),
    curves: &[Curve],
) -> anyhow::Result<()> {
    let inside = |point: &(f64, f64)| point.0 >= x_min;
    let x = (x_min..1.0).log_scale();
    let content = Content { curves, marks: &[], inside: &inside };
    plot(file, labels, (x, y.0..y.1), &content).with_context(|| file.display().to_string())
}

/// A DET plot: one error rate over the other, both logarithmic from `floor` to 1, and the marked
/// points. A rate below the floor, such as none at all, lies on the edge.
pub fn det(
    file: &Path,
    labels: &Labels,
    floor: f64,
    curves: &[Curve],
    marks: &[(f64, f64)],
) -> anyhow::Result<()> {
    let on_edge = |&(x, y): &(f64, f64)| (x.max(floor), y.max(floor));
    let curves: Vec<Curve> = curves
        .iter()
        .map(|curve| Curve {
            name: curve.name.clone(),
            points: curve.points.iter().map(on_edge).collect(),
        })
        .collect();
    let marks: Vec<_> = marks.iter().map(on_edge).collect();
    let axis = || (floor..1.0).log_scale();
    let content = Content { curves: &curves, marks: &marks, inside: &|_| true };
    plot(file, labels, (axis(), axis()), &content).with_context(|| file.display().to_string())
}

/// Curves over a linear axis.
pub fn lines(file: &Path, labels: &Labels, x: (f64, f64), curves: &[Curve]) -> anyhow::Result<()> {
    let highest = curves.iter().flat_map(|curve| &curve.points).map(|p| p.1).fold(0.0, f64::max);
    let y = 0.0..highest.max(1e-9) * 1.05;
    let content = Content { curves, marks: &[], inside: &|_| true };
    plot(file, labels, (x.0..x.1, y), &content).with_context(|| file.display().to_string())
}

struct Content<'a> {
    curves: &'a [Curve],
    /// Points with a circle around them.
    marks: &'a [(f64, f64)],
    /// Which points of the curves can be drawn.
    inside: &'a dyn Fn(&(f64, f64)) -> bool,
}

fn plot<X, Y>(file: &Path, labels: &Labels, (x, y): (X, Y), content: &Content) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let Content { curves, marks, inside } = content;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&labels.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(&labels.x).y_desc(&labels.y).draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = curve.points.iter().filter(|point| inside(point)).copied();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.draw_series(marks.iter().map(|mark| Circle::new(*mark, 5, BLACK.stroke_width(2))))?;
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}
