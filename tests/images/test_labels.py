"""The class names and ids of ImageNet-1k."""

from nfnet_eqx.images.labels import imagenet1k, imagenet1k_synsets


def test_there_are_a_thousand_different_names():
    names = imagenet1k()
    assert len(names) == len(set(names)) == 1000
    assert all(name == " ".join(name.split()) and name for name in names)


def test_they_stand_in_the_order_of_the_classifier():
    names = imagenet1k()
    assert {i: names[i] for i in (0, 1, 207, 281, 285, 388, 404, 817, 954, 999)} == {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        285: "Egyptian cat",
        388: "giant panda",
        404: "airliner",
        817: "sports car",
        954: "banana",
        999: "toilet tissue",
    }


def test_the_files_are_read_once():
    assert imagenet1k() is imagenet1k() and imagenet1k_synsets() is imagenet1k_synsets()


def test_the_ids_are_those_of_the_class_folders_in_their_order():
    ids = imagenet1k_synsets()
    assert len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert all(len(id_) == 9 and id_[0] == "n" and id_[1:].isdecimal() for id_ in ids)


def test_an_id_and_a_name_at_the_same_place_are_the_same_class():
    classes = dict(zip(imagenet1k_synsets(), imagenet1k(), strict=True))
    known = {
        "n01440764": "tench",
        "n02099601": "golden retriever",
        "n02123045": "tabby",
        "n02510455": "giant panda",
        "n02690373": "airliner",
        "n07753592": "banana",
        "n15075141": "toilet tissue",
    }
    assert {id_: classes[id_] for id_ in known} == known
