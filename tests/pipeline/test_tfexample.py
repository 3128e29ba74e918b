"""`tf.train.Example` without TensorFlow: what protobuf writes is read, and nothing else does harm."""

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx.data._tfexample import parse_example
from tests.pipeline.test_sources import tf_example

FEATURES = st.dictionaries(
    st.text(max_size=10),
    st.one_of(
        st.lists(st.binary(max_size=200), max_size=3),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def example_type() -> type:
    return tf_example()


@hypothesis.given(features=FEATURES)
def test_the_first_value_of_each_feature_is_read(example_type: type, features: dict[str, list]):
    example = example_type()
    expected = {}
    for name, values in features.items():
        feature = example.features.feature[name]
        if values and isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif values and isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        elif values:
            feature.float_list.value.extend(values)
        if values and not isinstance(values[0], float):
            expected[name] = values[0]
    assert parse_example(example.SerializeToString()) == expected


def test_integers_that_are_not_packed_are_read_too():
    # Example{features: {feature: {key: "label", value: {int64_list: {value: 300}}}}}, as protobuf 2 wrote it.
    assert parse_example(bytes.fromhex("0a100a0e0a056c6162656c12051a0308ac02")) == {"label": 300}


@hypothesis.given(data=st.binary(max_size=60))
def test_other_bytes_are_read_or_refused(data: bytes):
    try:
        parse_example(data)
    except ValueError:
        pass
