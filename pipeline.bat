@echo off
rem Text to image on the command line; sets up .venv on the first start: pipeline.bat "a prompt" 512 512 1 1
setlocal
pushd "%~dp0"
call tools\setup.bat requirements.txt
if %errorlevel% neq 0 exit /b %errorlevel%
popd
"%~dp0.venv\Scripts\python.exe" "%~dp0pipeline.py" %*
exit /b %errorlevel%
