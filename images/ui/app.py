"""A Streamlit app: each visitor's sum lives in the memory of one instance, and every click is a WebSocket message."""

import os

import streamlit as st

st.set_page_config(page_title="ui")
st.title("A sum")
step = st.slider("Step", 1, 10, 3)
st.session_state.setdefault("total", 0)
if st.button("Add"):
    st.session_state.total += step
st.write(f"Total: {st.session_state.total}")
st.caption(f"Instance {os.uname().nodename}")
