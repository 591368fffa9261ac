//! What every remote does, in each of the set-ups that work.

use super::contract;
use super::sample::{Place, Sample, Scene, told};
use trainspot_dvc::remote::RemoteStore as _;
use trainspot_dvc::{Object, ObjectContent};

/// Nothing, little, the largest of one request, one more, and three pieces.
const LENGTHS: [usize; 6] = [0, 20, 70_000, 2 << 20, (2 << 20) + 1, 17 << 20];

/// Sends what is missing, finds what is there, replaces what is wrong, and refuses what changed.
async fn story(place: Place, lengths: &[usize]) {
    let (scene, sample) = (Scene::new(place).await, Sample::of(lengths));
    let (remote, objects) = (scene.remote().await, &sample.objects);
    assert_eq!(remote.missing(objects).await.unwrap_or_else(told).len(), objects.len(), "before");
    remote.put_all(objects).await.unwrap_or_else(told);
    assert!(scene.has_all(objects), "what was sent is not what is there");
    assert_eq!(scene.files(), objects.len());
    assert_eq!(remote.missing(objects).await.unwrap_or_else(told), [], "after");
    // Sent again: nothing changes.
    remote.put(&objects[0]).await.unwrap_or_else(told);
    assert!(scene.has_all(objects) && scene.files() == objects.len());
    // One that is there but wrong is missing, and is replaced.
    spoil(&scene, &objects[1], b"wrong");
    assert_eq!(remote.missing(objects).await.unwrap_or_else(told), [objects[1].oid.clone()], "spoiled");
    remote.put(&objects[1]).await.unwrap_or_else(told);
    assert!(scene.has_all(objects) && scene.spotless(objects), "what was wrong was not replaced");
    assert_eq!(scene.fake.state().granted, 1, "one token is enough");
    changed(&scene, &sample).await;
    contract::hold(&scene);
    assert_eq!(scene.violations(), [""; 0]);
}

fn spoil(scene: &Scene, object: &Object, content: &[u8]) {
    let key = object.oid.key();
    let name = key.rsplit('/').next().unwrap();
    let mut state = scene.fake.state();
    let node = state.nodes.values_mut().find(|node| node.name == name && !node.trashed).unwrap();
    node.content = content.into();
}

/// A file that was changed after it was hashed, or removed, is not sent.
async fn changed(scene: &Scene, sample: &Sample) {
    let remote = scene.remote().await;
    for length in [100, 20 << 20] {
        let mut bytes = vec![7; length];
        fastrand::fill(&mut bytes);
        let object = sample.file("changing", &bytes);
        let ObjectContent::File(path) = &object.content else { unreachable!() };
        bytes[length / 2] ^= 1;
        std::fs::write(path, &bytes).unwrap();
        let why = remote.put(&object).await.unwrap_err().render();
        assert!(why.contains("is not what it was when it was hashed"), "{why}");
        std::fs::remove_file(path).unwrap();
        let why = remote.put(&object).await.unwrap_err().render();
        assert!(why.contains("cannot read") && why.contains("run what makes it again"), "{why}");
        assert_eq!(scene.whole_or_nothing(&object), None);
    }
    assert_eq!(scene.fake.state().sessions.len(), LENGTHS.len() - 4, "a session was left");
}

#[tokio::test]
async fn a_folder_of_a_shared_drive() {
    story(Place::SharedDrive, &LENGTHS).await;
    // Enough of them that folders are listed.
    story(Place::SharedDrive, &[&LENGTHS[..], &[30; 400]].concat()).await;
}

#[tokio::test]
async fn a_users_folder_by_delegation() {
    story(Place::Delegated, &LENGTHS).await;
}

#[tokio::test]
async fn a_users_folder_by_a_refresh_token() {
    story(Place::User, &LENGTHS).await;
}

#[tokio::test]
async fn my_drive_itself_and_a_clients_own_data() {
    story(Place::Root, &LENGTHS).await;
    story(Place::OwnData, &LENGTHS).await;
}

#[tokio::test]
async fn folders_and_files_of_one_name_are_all_looked_into() {
    let (scene, sample) = (Scene::new(Place::SharedDrive).await, Sample::of(&[30; 40]));
    let objects = &sample.objects;
    scene.push(objects).await.unwrap_or_else(told);
    // A second run made folders of the same names, and has some objects in them.
    let copies = {
        let mut state = scene.fake.state();
        let folder = |state: &super::fake::State, name: &str| {
            state.nodes.iter().find(|(_, node)| node.name == name).map(|(id, _)| id.clone()).unwrap()
        };
        let above = folder(&state, "store");
        let files = state.add("files", Some(&above), "nobody", None);
        let md5 = state.add("md5", Some(&files), "nobody", None);
        for object in &objects[..5] {
            let (key, moved) = (object.oid.key(), object.oid.folder());
            let name = key.rsplit('/').next().unwrap().to_owned();
            let prefix = state.add(moved.rsplit('/').next().unwrap(), Some(&md5), "nobody", None);
            let node = state.nodes.values_mut().find(|node| node.name == name).unwrap();
            node.parents = vec![prefix];
        }
        // And one that is there twice, once wrong.
        let key = objects[9].oid.key();
        let wrong = key.rsplit('/').next().unwrap();
        let parent = state.nodes.values().find(|node| node.name == wrong).unwrap().parents[0].clone();
        state.add(wrong, Some(&parent), "nobody", Some(b"wrong"));
        // A folder that differs only by case is another one.
        state.add("FILES", Some(&above), "nobody", None);
        state.nodes.len()
    };
    for few in [true, false] {
        let remote = scene.remote().await;
        let asked = if few { &objects[..12] } else { &objects[..] };
        assert_eq!(remote.missing(asked).await.unwrap_or_else(told), [objects[9].oid.clone()], "few: {few}");
    }
    scene.push(objects).await.unwrap_or_else(told);
    assert!(scene.has_all(objects) && scene.spotless(objects));
    assert_eq!(scene.fake.state().nodes.len(), copies, "the right one was sent again");
}

#[tokio::test]
async fn what_is_there_is_found_in_few_calls() {
    let (scene, sample) = (Scene::new(Place::SharedDrive).await, Sample::of(&[10; 1500]));
    scene.push(&sample.objects).await.unwrap_or_else(told);
    assert_eq!(scene.requests("POST", "/upload/"), sample.objects.len(), "one call for each object");
    let lists = scene.requests("GET", "/drive/v3/files");
    assert!(lists < 15, "{lists} calls to see that there is nothing");
    scene.fake.state().page = 1000;
    scene.fake.state().requests.clear();
    scene.push(&sample.objects).await.unwrap_or_else(told);
    let lists = scene.requests("GET", "/drive/v3/files");
    crate::support::say(&format!("gdrive: {lists} calls to see that 1,501 objects in 256 folders are there"));
    assert!(lists < 20, "{lists}");
}
