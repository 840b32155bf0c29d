"""The board: Streamlit pages that show a run and what the checks said about it. It draws and never judges."""
