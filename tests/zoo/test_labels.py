"""The class names of ImageNet-1k."""

from nfnet_eqx.zoo.labels import imagenet1k


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


def test_the_file_is_read_once():
    assert imagenet1k() is imagenet1k()
