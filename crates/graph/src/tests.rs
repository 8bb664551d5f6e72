use super::*;
use rbuild_ir::{ImageResult, MkdirOp, Op};
use rbuild_oci::{Digest, ImageConfig, Platform};

fn vertex(name: &str, parent: Option<&Vertex>, inputs: &[&Vertex]) -> Vertex {
    let op = Op::Mkdir(MkdirOp { path: format!("/{name}"), user: String::new(), epoch: None });
    let inputs = inputs.iter().map(|input| input.digest).collect();
    Vertex { name: name.into(), ..Vertex::new(op, parent.map(|parent| parent.digest), inputs) }
}

fn definition(vertices: &[&Vertex], root: Option<VertexDigest>) -> Definition {
    Definition {
        vertices: vertices.iter().map(|vertex| (*vertex).clone()).collect(),
        image: ImageResult {
            root,
            config: ImageConfig::default(),
            history: Vec::new(),
            origins: Vec::new(),
            platform: Platform::linux("amd64"),
            source_date_epoch: None,
        },
    }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.vertices().iter().map(|vertex| vertex.name.as_str()).collect()
}

#[test]
fn equal_vertices_are_one_and_unneeded_ones_are_gone() {
    let base = vertex("base", None, &[]);
    let twin = base.clone();
    let unused = vertex("unused", Some(&base), &[]);
    let left = vertex("left", Some(&base), &[]);
    let last = vertex("last", Some(&twin), &[&left]);
    let plan = Plan::new(&definition(&[&base, &twin, &unused, &left, &last], Some(last.digest))).unwrap();
    assert_eq!(names(&plan), ["base", "left", "last"]);
    assert_eq!((plan.targets(), plan.parent(2), plan.inputs(2)), (&[Some(2)][..], Some(0), &[1][..]));
    assert_eq!(plan.layer_line(0), [0, 2]);
}

#[test]
fn an_image_without_files_needs_nothing() {
    let plan = Plan::new(&definition(&[&vertex("unused", None, &[])], None)).unwrap();
    assert!(plan.vertices().is_empty() && plan.layer_line(0).is_empty());
}

// B-025: what two platforms share is one step.
#[test]
fn definitions_share_equal_vertices() {
    let shared = vertex("shared", None, &[]);
    let (left, right) = (vertex("left", None, &[&shared]), vertex("right", None, &[&shared]));
    let renamed = Vertex { name: "[other] shared".into(), ..shared.clone() };
    let definitions = [
        definition(&[&shared, &left], Some(left.digest)),
        definition(&[&renamed, &right], Some(right.digest)),
        definition(&[], None),
    ];
    let plan = Plan::of_all(&definitions).unwrap();
    assert_eq!(names(&plan), ["shared", "left", "right"]);
    assert_eq!(plan.targets(), [Some(1), Some(2), None]);
    assert_eq!((plan.layer_line(1), plan.layer_line(2)), (vec![2], vec![]));
}

#[test]
fn a_cycle_names_the_edge_that_closes_it() {
    let mut first = vertex("first", None, &[]);
    let second = vertex("second", Some(&first), &[]);
    first.parent = Some(second.digest);
    let error = Plan::new(&definition(&[&first, &second], Some(second.digest))).unwrap_err();
    assert_eq!(error, GraphError::Cycle { from: "second".into(), to: "first".into() });
}

#[test]
fn a_dangling_reference_is_an_error() {
    let mut only = vertex("only", None, &[]);
    only.parent = Some(Digest::of("nothing"));
    let error = Plan::new(&definition(&[&only], Some(only.digest))).unwrap_err();
    assert!(matches!(error, GraphError::Dangling { .. }), "{error}");
}

#[test]
fn the_critical_path_is_the_most_expensive_chain() {
    let base = vertex("base", None, &[]);
    let slow = vertex("slow", Some(&base), &[]);
    let quick = vertex("quick", Some(&base), &[]);
    let last = vertex("last", Some(&quick), &[&slow]);
    let plan = Plan::new(&definition(&[&base, &slow, &quick, &last], Some(last.digest))).unwrap();
    let path = plan.critical_path(|step| if plan.vertices()[step].name == "slow" { 10 } else { 1 });
    let path: Vec<&str> = path.into_iter().map(|step| plan.vertices()[step].name.as_str()).collect();
    assert_eq!(path, ["base", "slow", "last"]);
}

#[test]
fn dot_quotes_names() {
    let plan = {
        let only = vertex(r#"RUN echo "x""#, None, &[]);
        Plan::new(&definition(&[&only], Some(only.digest))).unwrap()
    };
    assert!(plan.dot().contains(r#"v0 [label="RUN echo \"x\""];"#), "{}", plan.dot());
}
