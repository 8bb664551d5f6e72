use super::*;
use proptest::prelude::*;

/// A tree of few names, so that paths collide.
fn trees() -> impl Strategy<Value = MemTree> {
    let name = prop::sample::select(vec!["a", "b", "a-", "a.c", "d"]);
    let item = (prop::collection::vec(name, 1..4), 0..5, 0u32..4);
    prop::collection::vec(item, 0..12).prop_map(|items| {
        items.into_iter().fold(MemTree::new(), |tree, (parts, kind, n)| {
            let at = path(&parts.join("/"));
            let free = at.ancestors().all(|dir| tree.lstat(&dir).unwrap().is_none_or(|meta| meta.is_dir()));
            if !free || tree.lstat(&at).unwrap().is_some() {
                return tree;
            }
            let at = at.as_bytes().to_vec();
            match kind {
                0 => tree.dir(&at).mode(0o700 + n),
                1 => tree.symlink(&at, ["/a", "../b", "d", "/"][n as usize]),
                2 => tree.special(&at, FileKind::Socket, (0, 0)),
                _ => tree.file(&at, n.to_string()).mtime(i64::from(n)),
            }
        })
    })
}

fn dests() -> impl Strategy<Value = String> {
    "(/(a|b|d|new)){0,3}/?".prop_map(|dest| format!("/{dest}"))
}

proptest! {
    /// Each entry once, in order, below a directory that comes before it or is the root.
    #[test]
    fn selections_are_ordered_and_unique(tree in trees(), exclude in "!?[abd*]{1,2}", source in "(a|b|d|\\*|\\.)(/[abd*])?") {
        let exclude = exclude_matcher(&["*/a".to_owned(), exclude]).unwrap();
        let options = SelectOptions { exclude: Some(&exclude), ..SelectOptions::default() };
        if let Ok(selection) = select(&tree, &source, &options) {
            for root in &selection.roots {
                prop_assert!(root.entries.windows(2).all(|pair| pair[0].dest < pair[1].dest));
                for entry in &root.entries {
                    prop_assert_ne!(entry.meta.kind, FileKind::Socket);
                    let held = |dir: &TreePath| root.entries.iter().any(|e| e.dest == *dir && e.meta.is_dir());
                    prop_assert!(entry.dest.ancestors().all(|dir| held(&dir)));
                }
            }
        }
    }

    /// Whatever is copied wherever, the layer is well formed, and doing it again changes nothing.
    #[test]
    fn layers_are_well_formed_and_idempotent(from in trees(), to in trees(), dest in dests(), link in any::<bool>()) {
        let options = PlaceOptions { link, ..options() };
        let sources = if from.lstat(&path("a")).unwrap().is_some_and(|m| !matches!(m.kind, FileKind::Symlink)) {
            vec![".", "a"]
        } else {
            vec!["."]
        };
        if let Ok(layer) = copy(&from, &sources, &dest, &to, &options) && !link {
            let once = after(&to, &layer);
            let again = copy(&from, &sources, &dest, &once, &options);
            if let Ok(again) = again {
                prop_assert_eq!(paths(&after(&once, &again)), paths(&once));
            }
        }
    }

    /// Whatever an archive replaces and whatever links it goes through, it makes a layer or is refused.
    #[test]
    fn archives_always_unpack(one in trees(), two in trees(), to in trees()) {
        let select = |tree: &MemTree| select_archive(archive::entries_of(tree, &[]));
        if let Ok(layer) = place(&[select(&one), select(&two)], "/new", &to, &options()) {
            check_layer(&layer, Some(&to));
        }
    }
}
